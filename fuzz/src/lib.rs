//! Hands libFuzzer's inputs to a target of Tallyhouse's.

pub use libfuzzer_sys::fuzz_target;
pub use tallyhouse::fuzzing::target;

/// So that targets can bound the memory they take.
#[global_allocator]
static ALLOCATOR: tallyhouse::fuzzing::Counting = tallyhouse::fuzzing::Counting;

/// Makes the binary of a target.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        $crate::fuzz_target!(|input: &[u8]| $crate::target($name).check(input));
    };
}
