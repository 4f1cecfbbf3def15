//! Every workload by every rule, with the same arrivals for each rule. Deterministic.

mod autoscaler;
mod signals;
mod workload;
mod world;

use std::fmt::Write as _;

use autoscaler::Autoscaler;
use signals::{RULES, Rule, Teller};
use workload::{WORKLOADS, Workload};
use world::{Totals, World};

/// Of the random arrivals.
const SEED: u64 = 1;

/// One workload by one rule.
fn run(workload: Workload, rule: Rule) -> Totals {
    let mut world = World::new(workload, SEED);
    let (mut teller, mut autoscaler) = (Teller::new(rule, &world), Autoscaler::default());
    while world.now < workload.seconds {
        world.step();
        teller.poll(&world);
        let wanted = autoscaler.decide(world.now, world.replicas(), teller.target, || teller.ask(&world));
        world.scale_to(wanted);
    }
    world.totals
}

/// What a table says of a run.
type Cell<'a> = &'a dyn Fn(&Totals) -> String;

/// The tables of docs/scaling.md.
pub(crate) fn tables() -> String {
    let runs = WORKLOADS.map(|workload| (workload.name, RULES.map(|rule| run(workload, rule))));
    let minutes = |seconds: u64| (seconds as f64 / 60.0).round();
    let late = |totals: &Totals| format!("{} / {}", minutes(totals.late_seconds), minutes(totals.replica_seconds));
    let swings = |totals: &Totals| format!("{} / {}", totals.reversals, totals.orphaned);
    let harm = |totals: &Totals| format!("{} / {}", minutes(totals.abandoned_seconds), totals.lost);
    let tables: [(&str, Cell<'_>); 3] = [
        ("minutes late / consumer-minutes", &late),
        ("changes of direction / entries orphaned", &swings),
        ("minutes without a consumer, with entries to deliver / entries lost", &harm),
    ];
    let mut text = String::new();
    for (title, cell) in tables {
        let names = RULES.map(Rule::name).join(" | ");
        let _ = writeln!(text, "| {title} | {names} |\n| --- |{}", " ---: |".repeat(RULES.len()));
        for (name, totals) in &runs {
            let cells: Vec<String> = totals.iter().map(cell).collect();
            let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
        }
        text.push('\n');
    }
    text.trim_end().to_owned() + "\n"
}
