#![no_main]

tallyhouse_fuzz::target!("recovery");
