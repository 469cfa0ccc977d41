#![no_main]

tallyhouse_fuzz::target!("grpc_events");
