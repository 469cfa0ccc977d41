#![no_main]

tallyhouse_fuzz::target!("segment");
