use std::fmt;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::*;

type Target = (&'static str, fn(&[u8]));

/// Every target, by the name of its folder in `fuzz/corpus`.
const TARGETS: [Target; 12] = [
    ("decoder", decoder),
    ("entry_ids", entry_ids),
    ("sampling", sampling),
    ("request", request),
    ("config_file", config_file),
    ("redis_url", redis_url),
    ("web_config", web_config),
    ("tokens_file", tokens_file),
    ("authorization", authorization),
    ("api_query", api_query),
    ("history_points", history_points),
    ("prometheus_answer", prometheus_answer),
];

/// Some seconds for each target without optimization; `make fuzz` is where time is spent.
const CASES: u32 = 2000;

/// An input is a seed with up to this many changes.
const MAX_CHANGES: usize = 6;

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut seeds: Vec<(String, Vec<u8>)> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|file| file.unwrap().path())
        .map(|path| (path.display().to_string(), std::fs::read(&path).unwrap()))
        .collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "{}", folder.display());
    seeds
}

#[test]
fn the_corpora_hold() {
    for (target, check) in TARGETS {
        for (file, seed) in corpus(target) {
            // What panics says what is wrong; this says where.
            let outcome = std::panic::catch_unwind(|| check(&seed));
            assert!(outcome.is_ok(), "{file}");
        }
    }
}

/// A change to a seed: where, how much is taken out, and what is put there.
type Mutation = (prop::sample::Index, usize, Vec<u8>);

/// Shown as text, which most of it is.
struct Input(Vec<u8>);

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

fn changed(mut seed: Vec<u8>, changes: &[Mutation]) -> Vec<u8> {
    for (at, out, put) in changes {
        let from = at.index(seed.len() + 1);
        let to = (from + out).min(seed.len());
        seed.splice(from..to, put.iter().copied());
    }
    seed
}

/// Random bytes seldom mean anything; seeds with a few changes often almost do. The same cases in every run.
#[test]
fn what_is_almost_right_holds() {
    for (target, check) in TARGETS {
        let seeds: Vec<Vec<u8>> = corpus(target).into_iter().map(|(_, seed)| seed).collect();
        let pieces: Vec<Vec<u8>> = seeds.iter().flat_map(|seed| seed.chunks(7)).map(<[u8]>::to_vec).collect();
        let put = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..4),
            prop::sample::select(pieces),
            prop::sample::select(vec![
                "-1",
                "0",
                "9223372036854775807",
                "18446744073709551616",
                "%",
                "\r\n",
                " ",
                "\u{1e}"
            ])
            .prop_map(|text| text.as_bytes().to_vec()),
        ];
        let changes = prop::collection::vec((any::<prop::sample::Index>(), 0..9usize, put), 0..MAX_CHANGES);
        let inputs = (prop::sample::select(seeds), changes).prop_map(|(seed, changes)| Input(changed(seed, &changes)));
        let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let outcome = runner.run(&inputs, |Input(input)| {
            check(&input);
            Ok(())
        });
        if let Err(error) = outcome {
            panic!("{target}: {error}");
        }
    }
}

/// A target without a folder, a folder without a target, or a fuzzer that calls another function, checks nothing.
#[test]
fn every_target_has_its_corpus_and_its_fuzzer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let folders = std::fs::read_dir(root.join("corpus")).unwrap();
    let mut folders: Vec<String> = folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let mut targets: Vec<String> = TARGETS.iter().map(|(target, _)| (*target).to_owned()).collect();
    folders.sort();
    targets.sort();
    assert_eq!(folders, targets);
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    for target in targets {
        let fuzzer = std::fs::read_to_string(root.join(format!("fuzz_targets/{target}.rs"))).unwrap();
        assert!(fuzzer.contains(&format!("streamlag::fuzzing::{target}(data)")), "{fuzzer}");
        assert!(manifest.contains(&format!("name = \"{target}\"")), "{manifest}");
    }
}
