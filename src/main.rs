//! The program: parse, start logging, run, exit code.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use streamlag::app;
use streamlag::config::{self, Invocation};
use streamlag::sys::log;

/// A poll makes and drops tens of thousands of small things, on two threads where the page is long. Measured at 1,000 streams
/// against glibc's allocator, when replies were a tree of values: 0.65 of the time, 0.7 of the CPU, no more memory.
#[cfg(all(feature = "jemalloc", not(windows)))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Threads that serve; the pollers have one of their own. More would only hold more memory, as most pages are ready bytes.
const WORKER_THREADS: usize = 2;

/// Further threads, for reading files again and for checking passwords, of which one is checked at a time.
const BLOCKING_THREADS: usize = 4;

/// Bad configuration.
const BAD_CONFIGURATION: u8 = 2;

/// `streamlag lag` has no answer, or could not print it.
const UNKNOWN: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    match config::parse(arguments.clone()) {
        Ok(Invocation::Run(config)) => {
            let level = log::start(config.log_level, config.log_format);
            let _at_end = log::FlushOnDrop;
            run(*config, arguments, level)
        }
        Ok(Invocation::Check(_)) => {
            warn_of_unknown_variables();
            print("the configuration is good\n", 0, 1)
        }
        Ok(Invocation::PrintConfig(text)) => {
            warn_of_unknown_variables();
            print(&text, 0, 1)
        }
        Ok(Invocation::Lag(request)) => {
            warn_of_unknown_variables();
            match app::lag(*request) {
                Ok(app::Printed { output, problems, code }) => {
                    for problem in problems {
                        let _ = exit_with_error(&problem, code);
                    }
                    print(&output, code, UNKNOWN)
                }
                Err(error) => exit_with_error(&format!("cannot start: {error}"), UNKNOWN),
            }
        }
        Ok(Invocation::History(request)) => {
            let mut out = std::io::BufWriter::new(std::io::stdout().lock());
            match app::history(&request, &mut out) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => exit_with_error(&error, 1),
            }
        }
        Ok(Invocation::Healthcheck(config)) => match app::healthcheck(&config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => exit_with_error(&error, 1),
        },
        Ok(Invocation::NotifyTest(config)) => match app::notify_test(&config) {
            Ok((output, all_told)) => print(&output, u8::from(!all_told), 1),
            Err(error) => exit_with_error(&format!("cannot start: {error}"), 1),
        },
        Ok(Invocation::AuditVerify(file)) => match app::audit_verify(&file) {
            Ok(text) => print(&text, 0, 1),
            Err(error) => exit_with_error(&error, 1),
        },
        Ok(Invocation::Print(text)) => print(&text, 0, 1),
        Err(problem) => exit_with_error(&problem, BAD_CONFIGURATION),
    }
}

fn run(config: config::Config, arguments: Vec<OsString>, level: log::Level) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return exit_with_error(&format!("cannot start: {error}"), 1),
    };
    let ended = runtime.block_on(app::run(config, arguments, level));
    // Nothing that still blocks, such as looking up a name, is waited for.
    runtime.shutdown_background();
    match ended {
        Ok(()) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(%error, "fatal error");
            if let app::RunError::NoPrometheus { .. } = error {
                ExitCode::from(BAD_CONFIGURATION)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn warn_of_unknown_variables() {
    for (variable, near) in config::unknown_variables() {
        let near = near.map_or_else(String::new, |near| format!(": did you mean {near}?"));
        let _ = exit_with_error(&format!("warning: unknown environment variable {variable}{near}"), 0);
    }
}

/// Prints, and exits with one code, or with the other if that fails.
fn print(text: &str, code: u8, failed: u8) -> ExitCode {
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::from(code),
        // Whoever reads it has had enough, as `head` has.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::from(failed),
        Err(error) => exit_with_error(&format!("cannot print: {error}"), failed),
    }
}

fn exit_with_error(problem: &dyn Display, code: u8) -> ExitCode {
    // Where standard error is gone, the exit code has to do.
    let _ = writeln!(std::io::stderr(), "streamlag: {problem}");
    ExitCode::from(code)
}
