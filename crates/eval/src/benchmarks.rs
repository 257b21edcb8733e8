//! The benchmarks, one file each.

mod accuracy;
mod blink;
mod easi;
mod egoschema;
mod embodied_r;
mod embspatial;
mod erqa;
mod leading_letter;
mod letter;
mod mindcube;
mod mmsi_bench;
mod mvbench;
mod pointing;
mod reader;
mod refspatial;
mod revsi;
mod robospatial;
mod robot_r1;
mod sat;
mod sti_bench;
mod threedsr_bench;
mod urbanvideo_bench;
mod viewspatial;
mod vsi_bench;
mod where2place;

use std::collections::BTreeSet;

use crate::benchmark::{Benchmark, Detection};

pub use accuracy::ACCURACY;
pub use embodied_r::EMBODIED_R;

/// All benchmarks, in the order of the command line's help.
pub static BENCHMARKS: [&Benchmark; 21] = [
    &EMBODIED_R,
    &vsi_bench::VSI_BENCH,
    &vsi_bench::VSI_BENCH_DEBIASED,
    &urbanvideo_bench::URBANVIDEO_BENCH,
    &mindcube::MINDCUBE_TINY,
    &mmsi_bench::MMSI_BENCH,
    &viewspatial::VIEWSPATIAL,
    &embspatial::EMBSPATIAL,
    &erqa::ERQA,
    &sat::SAT,
    &blink::BLINK,
    &threedsr_bench::THREEDSR_BENCH,
    &revsi::REVSI,
    &sti_bench::STI_BENCH,
    &where2place::WHERE2PLACE,
    &refspatial::REFSPATIAL,
    &robospatial::ROBOSPATIAL_HOME,
    &egoschema::EGOSCHEMA,
    &mvbench::MVBENCH,
    &robot_r1::ROBOT_R1,
    &ACCURACY,
];

/// The benchmark called `name`.
pub fn find(name: &str) -> Option<&'static Benchmark> {
    BENCHMARKS.into_iter().find(|benchmark| benchmark.name == name)
}

/// The benchmark that the categories of questions choose, if any: one that has all of them and shares them with no other;
/// [`ACCURACY`] if no benchmark is known to have any of them.
pub fn of_categories<'a>(
    categories: impl IntoIterator<Item = &'a str>,
) -> Option<&'static Benchmark> {
    let categories: BTreeSet<&str> = categories.into_iter().collect();
    let has =
        |benchmark: &Benchmark, category: &&str| benchmark.scored_category(category).is_some();
    let known = || BENCHMARKS.into_iter().filter(|it| it.detection != Detection::None);
    if !categories.iter().any(|category| known().any(|it| has(it, category))) {
        return (!categories.is_empty()).then_some(&ACCURACY);
    }
    let mut alone = known().filter(|it| it.detection == Detection::Alone);
    alone.find(|it| categories.iter().all(|category| has(it, category)))
}
