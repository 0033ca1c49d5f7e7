//! The binary `pelton`: reads the command line, runs one command, ends with its exit code. Decides nothing else.

mod admin;
mod allocator;
mod arguments;
mod boot;
mod cli;
mod config;
mod data_dir;
mod failure;
mod reshard;
#[cfg(feature = "sabotage")]
mod sabotage;
mod signals;
mod start_screen;
mod suggest;

use clap::Parser;

use arguments::{Arguments, Command};
use failure::Failure;

#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator;

fn main() {
    let arguments = Arguments::parse();
    if let Err(failure) = run(&arguments.command) {
        if !failure.message.is_empty() {
            eprintln!("pelton: {}", failure.message);
        }
        std::process::exit(failure.exit as i32);
    }
}

fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Start(arguments) => boot::run(arguments),
        Command::Topic(command) => cli::topic::run(command),
        Command::Produce(arguments) => cli::produce::run(arguments),
        Command::Consume(arguments) => cli::consume::run(arguments),
        Command::Group(command) => cli::group::run(command),
        Command::Cluster(command) => cli::cluster::run(command),
    }
}
