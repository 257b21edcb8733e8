//! `embodied-r preprocess`.

use std::path::Path;

use embodied_r_data::Error;
use embodied_r_data::preprocess::{self, Categories, PreprocessOptions, PreprocessSummary};
use embodied_r_data::split::SplitStrategy;
use embodied_r_data::videos::Transfer;

use crate::args::preprocess::{PreprocessArgs, Videos};
use crate::exit::{self, Status, Usage};
use crate::output::{out, outln};
use crate::progress::Bar;

/// Dataset repositories of the benchmarks on the Hugging Face Hub.
const VSI_BENCH: &str = "nyu-visionx/VSI-Bench";
const URBANVIDEO_BENCH: &str = "EmbodiedCity/UrbanVideo-Bench";

/// Unify VSI-Bench and UrbanVideo-Bench into one question set, split by scene.
pub(crate) fn run(args: PreprocessArgs) -> anyhow::Result<Status> {
    let options = options(args)?;
    let summary = preprocess::run(&options, &Bar::default())
        .map_err(|error| advise(error, &options.input))?;
    out!("{}", tables(&summary))?;
    outln!("wrote {}", options.output.join("complete").display())?;
    let videos: usize = summary.videos.iter().map(|count| count.videos).sum();
    if options.videos.is_none() || summary.videos_present() > 0 {
        return Ok(Status::Done);
    }
    outln!(
        "found none of the {videos} videos in {}: put them there, or give `--annotations-only` for the questions alone",
        options.input.display()
    )?;
    Ok(Status::Partial)
}

fn options(args: PreprocessArgs) -> anyhow::Result<PreprocessOptions> {
    let plan = match (args.fold, args.folds) {
        (Some(fold), Some(folds)) => {
            SplitStrategy::fold(fold, folds).map_err(|fault| Usage(fault.to_string()))?
        }
        _ => SplitStrategy::Ratios,
    };
    Ok(PreprocessOptions {
        input: args.data,
        output: args.output,
        videos: match (args.annotations_only, args.videos) {
            (true, _) => None,
            (false, Videos::Link) => Some(Transfer::Link),
            (false, Videos::Copy) => Some(Transfer::Copy),
            (false, Videos::Move) => Some(Transfer::Move),
        },
        strategy: plan,
        seed: args.seed,
        categories: match args.all_categories {
            true => Categories::All,
            false => Categories::EmbodiedR,
        },
    })
}

/// Adds hints for common mistakes; `data` is the directory of the benchmarks.
fn advise(error: Error, data: &Path) -> anyhow::Error {
    let download = download(data);
    let advice = match &error {
        Error::NoBenchmark { .. } => download.as_str(),
        Error::Io(file) if file.action == "read" && file.path == data => download.as_str(),
        Error::Parquet { .. } | Error::MissingColumn { .. } | Error::ColumnType { .. } => {
            "download the annotation file again; it should be the one that the benchmark publishes"
        }
        Error::Archive { .. } => "download the archive again, or remove it to continue without it",
        _ => return error.into(),
    };
    exit::hint(error.to_string(), advice)
}

/// How to get the benchmarks.
fn download(data: &Path) -> String {
    let data = data.display().to_string();
    let data = data.trim_end_matches('/');
    format!(
        "download one or both of the benchmarks, or point `--data` to the directory that holds them:\n  \
         hf download --repo-type dataset {VSI_BENCH} --local-dir {data}/VSI-Bench\n  \
         hf download --repo-type dataset {URBANVIDEO_BENCH} --local-dir {data}/UrbanVideo-Bench\n\
         (https://huggingface.co/datasets/{VSI_BENCH}, https://huggingface.co/datasets/{URBANVIDEO_BENCH}); \
         `embodied-r sim rooms --output {data}` renders simulated ones instead"
    )
}

fn tables(summary: &PreprocessSummary) -> String {
    let mut categories: Vec<Vec<String>> = vec![row(["benchmark", "category", "kept", "dropped"])];
    for count in &summary.categories {
        let [kept, dropped] = [count.kept, count.dropped].map(|number| number.to_string());
        categories.push(row([count.benchmark.name(), &count.category, &kept, &dropped]));
    }
    let dropped: usize = summary.categories.iter().map(|count| count.dropped).sum();
    categories.push(row(["total", "", &summary.kept().to_string(), &dropped.to_string()]));

    let mut splits = vec![row(["benchmark", "split", "scenes", "questions"])];
    for count in &summary.splits {
        let [scenes, questions] = [count.scenes, count.questions].map(|number| number.to_string());
        splits.push(row([count.benchmark.name(), count.split.name(), &scenes, &questions]));
    }

    let heads = ["benchmark", "videos", "new", "existing", "missing", "questions without video"];
    let mut videos = vec![row(heads)];
    for count in &summary.videos {
        let numbers = [count.videos, count.placed, count.already, count.missing.len()];
        let mut cells = vec![count.benchmark.name().to_owned()];
        cells.extend(numbers.map(|number| number.to_string()));
        cells.push(count.questions_without.to_string());
        videos.push(cells);
    }
    [categories, splits, videos].map(|rows| aligned(&rows)).concat()
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// An aligned table: numeric columns to the right, text to the left.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let cell = |row: &Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
    let width =
        |column| rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or_default();
    let numeric =
        |column| rows.iter().skip(1).all(|row| cell(row, column).parse::<usize>().is_ok());
    let layout: Vec<(usize, bool)> = (0..columns).map(|it| (width(it), numeric(it))).collect();
    let mut text = String::new();
    for row in rows {
        let cells = layout.iter().enumerate().map(|(column, &(width, numeric))| match numeric {
            true => format!("{:>width$}", cell(row, column)),
            false => format!("{:<width$}", cell(row, column)),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text.push('\n');
    text
}
