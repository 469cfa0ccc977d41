#![no_main]

tallyhouse_fuzz::target!("times");
