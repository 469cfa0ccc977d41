#![no_main]

tallyhouse_fuzz::target!("properties");
