#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| deltaforge_fuzz::mysql_values(bytes));
