//! `embodied-r preprocess`.

use embodied_r_data::Error;
use embodied_r_data::preprocess::{self, Categories, Options, Summary};
use embodied_r_data::split::Plan;
use embodied_r_data::videos::Transfer;

use crate::args::preprocess::{PreprocessArgs, Videos};
use crate::exit::{self, Status, Usage};
use crate::output::{out, outln};
use crate::progress::Bar;

/// Unify VSI-Bench and UrbanVideo-Bench into one question set, split by scene.
pub(crate) fn run(args: PreprocessArgs) -> anyhow::Result<Status> {
    let options = options(args)?;
    let summary = preprocess::run(&options, &Bar::default()).map_err(advise)?;
    out!("{}", tables(&summary))?;
    outln!("wrote {}", options.output.join("complete").display())?;
    Ok(Status::Done)
}

fn options(args: PreprocessArgs) -> anyhow::Result<Options> {
    let plan = match (args.fold, args.folds) {
        (Some(fold), Some(folds)) => {
            Plan::fold(fold, folds).map_err(|fault| Usage(fault.to_string()))?
        }
        _ => Plan::Shares,
    };
    Ok(Options {
        input: args.input,
        output: args.output,
        videos: match args.videos {
            Videos::Link => Transfer::Link,
            Videos::Copy => Transfer::Copy,
            Videos::Move => Transfer::Move,
        },
        plan,
        seed: args.seed,
        categories: match args.all_categories {
            true => Categories::All,
            false => Categories::EmbodiedR,
        },
    })
}

/// Adds what to do about the usual mistakes.
fn advise(error: Error) -> anyhow::Error {
    let advice = match &error {
        Error::NoBenchmark { .. } => {
            "download at least one of the two benchmarks there, or name the folder that holds them \
             with --input"
        }
        Error::Parquet { .. } | Error::MissingColumn { .. } | Error::ColumnType { .. } => {
            "download the annotation file again; it should be the one that the benchmark publishes"
        }
        Error::Archive { .. } => "download the archive again, or remove it to go on without it",
        _ => return error.into(),
    };
    exit::hint(error.to_string(), advice)
}

fn tables(summary: &Summary) -> String {
    let mut categories: Vec<Vec<String>> = vec![row(["benchmark", "category", "kept", "dropped"])];
    for count in &summary.categories {
        let [kept, dropped] = [count.kept, count.dropped].map(|number| number.to_string());
        categories.push(row([count.benchmark.name(), &count.category, &kept, &dropped]));
    }
    let dropped: usize = summary.categories.iter().map(|count| count.dropped).sum();
    categories.push(row(["all", "", &summary.kept().to_string(), &dropped.to_string()]));

    let mut splits = vec![row(["benchmark", "split", "scenes", "questions"])];
    for count in &summary.splits {
        let [scenes, questions] = [count.scenes, count.questions].map(|number| number.to_string());
        splits.push(row([count.benchmark.name(), count.split.name(), &scenes, &questions]));
    }

    let heads = ["benchmark", "videos", "placed", "there already", "missing", "questions without"];
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

/// Rows under one another: numbers and their heads to the right, texts to the left.
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
