#![no_main]

tallyhouse_fuzz::target!("page_token");
