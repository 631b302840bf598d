//! The operator's process. Everything it does is the library's.

use std::process::ExitCode;

fn main() -> ExitCode {
    servicechain_operator::process::main()
}
