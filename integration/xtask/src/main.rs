//! The project's own commands, one file each: `cargo xtask --help` lists them.

mod bench;
mod build;
mod check;
mod conformance;
mod demo;
mod demo_daemon;
mod fuzz;
mod install;
mod packages;
mod project;
mod properties;
mod prove_security;
mod test;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Arguments),
    Build(build::Arguments),
    Check(check::Arguments),
    Conformance(conformance::Arguments),
    Demo(demo::Arguments),
    Properties(properties::Arguments),
    Fuzz(fuzz::Arguments),
    Install(install::Arguments),
    ProveSecurity(prove_security::Arguments),
    Test(test::Arguments),
    Vm(vm::Arguments),
}

fn main() -> ExitCode {
    run(Arguments::parse().command).unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Bench(arguments) => bench::run(arguments),
        Command::Build(arguments) => build::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Properties(arguments) => properties::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Install(arguments) => install::run(&arguments),
        Command::ProveSecurity(arguments) => prove_security::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Conformance(arguments) => conformance::run(arguments),
        Command::Vm(arguments) => vm::run(&arguments),
    }
}
