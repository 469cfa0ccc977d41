#![no_main]

tallyhouse_fuzz::target!("rest_body");
