//! Compares the planner's estimates with embodied-r's measurements in `docs/benchmarks.md`: memory within 15 %, time
//! within 30 %. Machines, options and measurements are read from the page; nothing is timed here.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeMap;

use embodied_r_grpo::estimate::memory_plan::{
    ActivationCachePolicy, MemoryPlan, Placement, Workload,
};
use embodied_r_grpo::estimate::roofline::{
    CpuPeaks, InterNodeLink, IntraNodeLink, Machine, Network, PhaseKind, StepEstimate,
};
use embodied_r_grpo::settings::Optim;
use embodied_r_grpo::settings::Recompute;
use embodied_r_policy::trainable::ParameterCounts;
use embodied_r_policy::{ModelConfig, Precision};

const PAGE: &str = include_str!("../../../docs/benchmarks.md");

const MEMORY_TOLERANCE: f64 = 0.15;

/// The machines were shared: the same step took from 7.3 to 11.1 s.
const TIME_TOLERANCE: f64 = 0.30;

/// Headings of the tables of steps, with the fewest rows expected.
const STEPS: [(&str, usize); 2] = [("GRPO steps", 6), ("Ranks", 2)];

/// A table row: its cells by column heading.
type Row = BTreeMap<&'static str, &'static str>;

/// The text of a section.
fn section(heading: &str) -> &'static str {
    let found = PAGE.split_once(&format!("\n## {heading}\n"));
    let (_, rest) = found.unwrap_or_else(|| panic!("no section `{heading}`"));
    rest.split("\n## ").next().unwrap()
}

/// The rows of a section's table.
fn rows(heading: &str) -> Vec<Row> {
    let cells = |line: &'static str| -> Vec<&'static str> {
        line.trim().trim_matches('|').split('|').map(str::trim).collect()
    };
    let mut lines = section(heading).lines().filter(|line| line.starts_with('|')).map(cells);
    let headings = lines.next().unwrap_or_else(|| panic!("no table in `{heading}`"));
    let row = |cells: Vec<&'static str>| -> Row {
        assert_eq!(cells.len(), headings.len(), "{heading}: {cells:?}");
        headings.iter().copied().zip(cells).collect()
    };
    // The second line aligns the columns.
    lines.skip(1).map(row).collect()
}

/// The rows of embodied-r, of which the page must have at least `least`.
fn own_rows(heading: &str, least: usize) -> Vec<Row> {
    let is_own = |row: &Row| row.get("program").is_none_or(|program| *program == "embodied-r");
    let own: Vec<Row> = rows(heading).into_iter().filter(is_own).collect();
    assert!(own.len() >= least, "`{heading}` has {} rows of embodied-r", own.len());
    own
}

/// README's first claim is about TRL's fastest and leanest micro-batches.
#[test]
fn the_readme_compares_speed_with_the_fastest_trl_and_memory_with_the_leanest() {
    let all = rows("TRL's micro-batches");
    let of = |program: &str, column: &str| -> Vec<f64> {
        let of_program = all.iter().filter(|row| cell(row, "program") == program);
        of_program.flat_map(|row| numbers(row, column)).collect()
    };
    let mean = |numbers: Vec<f64>| numbers.iter().sum::<f64>() / numbers.len() as f64;
    let least = |numbers: Vec<f64>| numbers.into_iter().fold(f64::INFINITY, f64::min);
    let [step, memory] = ["step, s", "peak memory, GB"];
    assert_eq!(of("TRL", "completions per micro-batch"), [16.0, 8.0, 4.0, 2.0]);
    let speed = least(of("TRL", step)) / mean(of("embodied-r", step));
    let share = 100.0 * mean(of("embodied-r", memory)) / least(of("TRL", memory));
    let claim = format!("**{speed:.1} times TRL's step rate in {share:.0} % of its memory**");
    let readme = include_str!("../../../README.md");
    assert!(readme.contains(&claim), "{claim}");
}

fn cell(row: &Row, column: &str) -> &'static str {
    row.get(column).copied().unwrap_or_else(|| panic!("no column `{column}` in {row:?}"))
}

/// The numbers of a cell, one per call; none for a dash.
fn optional_numbers(row: &Row, column: &str) -> Vec<f64> {
    let number = |text: &str| -> f64 {
        let parsed = text.replace(',', "").parse();
        parsed.unwrap_or_else(|_| panic!("`{text}` in column `{column}` of {row:?}"))
    };
    match cell(row, column) {
        "–" => Vec::new(),
        numbers => numbers.split(", ").map(number).collect(),
    }
}

/// The numbers of a cell that must have some.
fn numbers(row: &Row, column: &str) -> Vec<f64> {
    let numbers = optional_numbers(row, column);
    assert!(!numbers.is_empty(), "nothing in column `{column}` of {row:?}");
    numbers
}

/// A row of the table of machines.
struct Hardware {
    peaks: CpuPeaks,
    memory_bytes: usize,
}

/// The machine that a section names, as in `Machine *intel*`.
fn hardware(heading: &str) -> Hardware {
    let found = section(heading).split_once("Machine *");
    let (_, rest) = found.unwrap_or_else(|| panic!("`{heading}` names no machine"));
    let name = rest.split('*').next().unwrap();
    let named = rows("Machines").into_iter().find(|row| cell(row, "machine") == name);
    let row = named.unwrap_or_else(|| panic!("no machine `{name}`"));
    let billions = |column: &str| 1e9 * numbers(&row, column)[0];
    Hardware {
        peaks: CpuPeaks {
            f32_flops_per_s: billions("f32, GFLOP/s"),
            bf16_flops_per_s: billions("bf16, GFLOP/s"),
            read_bytes_per_s: billions("read, GB/s"),
        },
        memory_bytes: billions("memory, GB") as usize,
    }
}

/// The configuration of a `bench make-model` preset.
fn model(preset: &str) -> ModelConfig {
    let half_b = ModelConfig::published("Qwen2.5-0.5B").unwrap();
    match preset {
        "qwen2.5-0.5b" => half_b,
        "shape-e" => ModelConfig {
            vocab_size: 8_192,
            hidden_size: 512,
            intermediate_size: 1_408,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            num_key_value_heads: 2,
            head_dim: 64,
            ..half_b
        },
        other => panic!("no model `{other}`"),
    }
}

/// The options of a `bench` command.
struct Options {
    groups: usize,
    group_size: usize,
    prompt: usize,
    new: usize,
    budget: usize,
    precision: Precision,
    recompute: Recompute,
    ranks: usize,
}

impl Options {
    /// Parses options such as `--groups 2 --precision bf16`; the defaults are those of the commands.
    fn parse(text: &str) -> Self {
        let mut options = Self {
            groups: 2,
            group_size: 8,
            prompt: 1024,
            new: 128,
            budget: 2048,
            precision: Precision::F32,
            recompute: Recompute::Auto,
            ranks: 1,
        };
        let mut words = text.trim_matches('`').split_whitespace();
        while let Some(option) = words.next() {
            let value = words.next().unwrap_or_else(|| panic!("`{option}` without a value"));
            let count = || value.parse::<usize>().unwrap();
            match (option, value) {
                ("--groups", _) => options.groups = count(),
                ("--group-size", _) => options.group_size = count(),
                ("--prompt", _) => options.prompt = count(),
                ("--new", _) => options.new = count(),
                ("--max-tokens-per-batch", _) => options.budget = count(),
                ("--ranks", _) => options.ranks = count(),
                ("--precision", "f32") => options.precision = Precision::F32,
                ("--precision", "bf16") => options.precision = Precision::Bf16,
                ("--recompute", "auto") => options.recompute = Recompute::Auto,
                ("--recompute", "all") => options.recompute = Recompute::All,
                ("--recompute", "none") => options.recompute = Recompute::None,
                _ => panic!("`{option} {value}` in `{text}`"),
            }
        }
        options
    }
}

/// The estimates for a row.
struct Estimate {
    memory_bytes: usize,
    step_s: f64,
    prefill_s: f64,
    decoding_step_s: f64,
}

/// Estimates memory and time as `bench grpo` and `plan --device cpu` do.
fn estimate(config: &ModelConfig, options: &Options, hardware: &Hardware) -> Estimate {
    let (parameters, ranks) = (config.parameter_count(), options.ranks);
    let counts = ParameterCounts { trainable: parameters, total: parameters };
    let workload = Workload {
        reference: parameters,
        prompts: options.groups,
        prompt: options.prompt,
        completions: options.group_size,
        completion: options.new,
        budget: options.budget,
        rollout: Some(options.precision),
        activation_cache: ActivationCachePolicy::Auto,
        ..Workload::new(counts, Optim::Adamw)
    };
    let workload = workload.on(Placement::Cpu(ranks), options.precision);
    let free = hardware.memory_bytes / ranks;
    let plan = MemoryPlan::new(config, &workload, options.recompute, Some(free));
    let machine = Machine::cpu(&hardware.peaks, options.precision).shared_by(ranks);
    let network = Network::new(ranks, IntraNodeLink::memory(), 1, InterNodeLink::ethernet(1.0));
    let step = StepEstimate::new(config, &workload, &plan, &machine, &network);
    let rollout = StepEstimate::of_rollout(config, &workload, &plan, &machine);
    Estimate {
        memory_bytes: plan.total(),
        step_s: step.seconds(),
        prefill_s: rollout.seconds_of(PhaseKind::Prefill),
        decoding_step_s: rollout.seconds_of(PhaseKind::Decode) / (options.new - 1) as f64,
    }
}

/// The rows of embodied-r in a section with their options and estimates.
fn estimated(heading: &str, least: usize, options: &str) -> Vec<(Row, Options, Estimate)> {
    let hardware = hardware(heading);
    let of_row = |row: Row| {
        let options = Options::parse(cell(&row, options));
        let estimate = estimate(&model(cell(&row, "model")), &options, &hardware);
        (row, options, estimate)
    };
    own_rows(heading, least).into_iter().map(of_row).collect()
}

/// All rows of whole steps.
fn steps() -> Vec<(Row, Options, Estimate)> {
    let of = |(heading, least)| estimated(heading, least, "`bench grpo` options");
    STEPS.into_iter().flat_map(of).collect()
}

/// A measurement and its estimate, in the same unit.
struct Compared {
    what: String,
    measured: f64,
    estimated: f64,
}

impl Compared {
    fn each(what: &str, row: &Row, measured: Vec<f64>, estimated: f64) -> Vec<Self> {
        let options = row.iter().find(|(column, _)| column.ends_with("options"));
        let what = format!("{what}, {} {}", cell(row, "model"), options.unwrap().1);
        let of = |measured| Self { what: what.clone(), measured, estimated };
        measured.into_iter().map(of).collect()
    }

    fn relative_error(&self) -> f64 {
        self.estimated / self.measured - 1.0
    }

    /// Whether the error is within `tolerance`; a NaN is not.
    fn is_within(&self, tolerance: f64) -> bool {
        self.relative_error().abs() <= tolerance
    }
}

/// Prints all comparisons, visible with `--nocapture`, and asserts that all are within the tolerance.
fn assert_within(tolerance: f64, compared: &[Compared]) {
    let line = |it: &Compared| {
        let Compared { what, measured, estimated } = it;
        let percent = 100.0 * it.relative_error();
        format!("{what:<90} {measured:>9.4} {estimated:>9.4} {percent:>+5.0} %")
    };
    compared.iter().for_each(|it| println!("{}", line(it)));
    let beyond: Vec<String> =
        compared.iter().filter(|it| !it.is_within(tolerance)).map(line).collect();
    assert_eq!(beyond, Vec::<String>::new());
}

#[test]
fn the_memory_estimate_of_every_step_is_within_15_per_cent() {
    let of_row = |(row, _, estimate): (Row, Options, Estimate)| {
        let measured = numbers(&row, "peak memory, GB");
        Compared::each("peak memory", &row, measured, estimate.memory_bytes as f64 / 1e9)
    };
    assert_within(MEMORY_TOLERANCE, &steps().into_iter().flat_map(of_row).collect::<Vec<_>>());
}

#[test]
fn the_page_has_the_memory_estimates_of_this_build() {
    for (row, _, estimate) in steps() {
        let printed = cell(&row, "estimated memory, GB");
        let decimals = printed.split_once('.').map_or(0, |(_, decimals)| decimals.len());
        let today = format!("{:.decimals$}", estimate.memory_bytes as f64 / 1e9);
        assert_eq!(printed, today, "{row:?}");
    }
}

#[test]
fn the_time_estimate_of_every_step_is_within_30_per_cent() {
    let of_row = |(row, _, estimate): (Row, Options, Estimate)| {
        Compared::each("step", &row, numbers(&row, "step, s"), estimate.step_s)
    };
    assert_within(TIME_TOLERANCE, &steps().into_iter().flat_map(of_row).collect::<Vec<_>>());
}

#[test]
fn the_time_estimate_of_every_generation_is_within_30_per_cent() {
    let mut compared = Vec::new();
    for (row, options, estimate) in estimated("Generation", 8, "`bench generate` options") {
        let seconds = |tokens: usize, per_s: Vec<f64>| -> Vec<f64> {
            per_s.into_iter().map(|per_s| tokens as f64 / per_s).collect()
        };
        let new = options.groups * options.group_size * options.new;
        let generation_s = estimate.prefill_s + (options.new - 1) as f64 * estimate.decoding_step_s;
        let measured = seconds(new, numbers(&row, "new tokens/s"));
        compared.extend(Compared::each("generation", &row, measured, generation_s));
        let prompts = options.groups * options.prompt;
        let measured = seconds(prompts, optional_numbers(&row, "prefill tokens/s"));
        compared.extend(Compared::each("prefill", &row, measured, estimate.prefill_s));
    }
    assert!(compared.iter().filter(|it| it.what.starts_with("prefill")).count() >= 2);
    assert_within(TIME_TOLERANCE, &compared);
}

#[test]
fn the_time_estimate_of_every_decoding_step_and_prefill_is_within_30_per_cent() {
    let mut compared = Vec::new();
    for (row, _, estimate) in estimated("Decoding", 15, "`bench generate` options") {
        let step_ms = 1e3 * estimate.decoding_step_s;
        let measured = numbers(&row, "decoding step, ms");
        compared.extend(Compared::each("decoding step", &row, measured, step_ms));
        let measured = optional_numbers(&row, "prefill, s");
        compared.extend(Compared::each("prefill", &row, measured, estimate.prefill_s));
    }
    assert!(compared.iter().filter(|it| it.what.starts_with("prefill")).count() >= 6);
    assert_within(TIME_TOLERANCE, &compared);
}
