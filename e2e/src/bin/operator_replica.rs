//! The operator as a process of its own, for tests that stop, resume and kill one: its own `main`, and nothing beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    servicechain_operator::process::main()
}
