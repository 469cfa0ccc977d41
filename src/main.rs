//! A driver for the engine alone.

use std::process::ExitCode;

use clap::Parser;
use tallyhouse::clickhouse::engine::{ChildArgs, Engine, run_child};
use tallyhouse::config::{Config, ConfigArgs};

#[derive(Parser)]
enum Cli {
    #[command(hide = true)]
    Engine(ChildArgs),
    Dev(Box<ConfigArgs>),
}

fn main() -> ExitCode {
    match Cli::parse() {
        Cli::Engine(args) => run_child(args),
        Cli::Dev(args) => {
            tracing_subscriber::fmt().with_writer(std::io::stderr).init();
            let runtime = tokio::runtime::Runtime::new().expect("runtime");
            runtime.block_on(async {
                let config = Config::load(*args, None).expect("config");
                let begun = std::time::Instant::now();
                match Engine::start(&config).await {
                    Ok(engine) => {
                        let endpoint = engine.endpoint();
                        println!("{} {} {:?}", endpoint.url, endpoint.password.expose(), begun.elapsed());
                        tokio::signal::ctrl_c().await.expect("signal");
                        engine.stop().await;
                        ExitCode::SUCCESS
                    }
                    Err(error) => {
                        eprintln!("{error}");
                        ExitCode::FAILURE
                    }
                }
            })
        }
    }
}
