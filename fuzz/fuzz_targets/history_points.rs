#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| streamlag::fuzzing::history_points(data));
