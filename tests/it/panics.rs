//! A defect that ends a task is counted, and logged with its place; the others go on.

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use streamlag::sys::log;
use streamlag::sys::own_metrics::SelfMetrics;
use streamlag::sys::panic_hook;
use tracing::level_filters::LevelFilter;

/// In a process of its own, as the hook is the process's, and so that what it writes can be read.
#[test]
fn a_panic_is_counted_and_logged_with_its_place() {
    const CHILD: &str = "PANICS_CHILD";
    if std::env::var_os(CHILD).is_some() {
        panics_and_says_how_many();
        return;
    }
    let test = std::env::current_exe().unwrap();
    let output = std::process::Command::new(test)
        .args(["--nocapture", "--exact"])
        .arg("panics::a_panic_is_counted_and_logged_with_its_place")
        .env(CHILD, "1")
        .output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("panic in a streamlag task; please report it"), "{said}");
    assert!(said.contains("place=tests/it/panics.rs:") && said.contains("on purpose"), "{said}");
    assert!(said.contains("streamlag_panics_total 1\n"), "{said}");
}

fn panics_and_says_how_many() {
    let _level = log::start(LevelFilter::INFO, log::Format::Logfmt);
    let mut registry = Registry::default();
    panic_hook::watch(SelfMetrics::register(&mut registry));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    runtime.block_on(async {
        assert!(tokio::spawn(async { panic!("on purpose") }).await.unwrap_err().is_panic());
        assert_eq!(tokio::spawn(async { 5 }).await.unwrap(), 5, "the others go on");
    });
    let mut page = String::new();
    encode(&mut page, &registry).unwrap();
    eprintln!("{page}");
}
