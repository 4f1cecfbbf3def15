#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| streamlag::fuzzing::api_query(data));
