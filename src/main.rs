//! The command `strata`.

fn main() -> std::process::ExitCode {
    diskstrata::cli::main()
}
