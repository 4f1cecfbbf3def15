//! `make bench-scaling`: KEDA and the horizontal pod autoscaler over eight workloads, by each of streamlag's signals and by the rule of
//! KEDA's redis-streams scaler. Prints the tables of docs/scaling.md.

#![allow(clippy::print_stdout, reason = "it prints tables")]

mod simulation;

fn main() {
    println!("{}", simulation::tables());
}
