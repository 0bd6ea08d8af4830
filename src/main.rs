//! The binary: runs the command line.

use std::process::ExitCode;

/// Compared with the system's allocator in `bench/README.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Err(error) = portcullis::init_crypto() {
        eprintln!("portcullis: {error}");
        return ExitCode::FAILURE;
    }
    portcullis::cli::main()
}
