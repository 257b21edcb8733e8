//! Writes rooms in the benchmarks' layout: annotation tables, videos, and ground-truth scene files.
//!
//! ```text
//! OUT/rooms.json                                       the settings of the rooms
//! OUT/VSI-Bench/test-00000-of-00001.parquet
//! OUT/VSI-Bench/rooms.zip                              rooms/room_00000.mp4 …
//! OUT/UrbanVideo-Bench/MCQ.parquet
//! OUT/UrbanVideo-Bench/videos/Room_1_0.mp4 …
//! OUT/scenes/room_00000.json, Room_1_0.json …
//! ```
//! Each room belongs to one benchmark only, so that no room is in two splits however each benchmark
//! is split.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use embodied_r_data::urban::{self, UrbanRow};
use embodied_r_data::vsi::{self, VsiRow};
use embodied_r_data::{Benchmark, Progress};
use embodied_r_files::{Error as FileError, remove_abandoned, write_atomic_with};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::error::{Error, Result};
use crate::question_template::{Category, letter};
use crate::questions::{Room, room};
use crate::video::render_video;

/// Name of the archive's folder and of the dataset in VSI-Bench's table.
const DATASET: &str = "rooms";

/// Which questions to generate for each room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomsOptions {
    /// Question categories. Rooms alternate between the categories' benchmarks.
    pub categories: Vec<Category>,
    /// Questions per category and room of its benchmark.
    pub per_category: usize,
}

impl Default for RoomsOptions {
    fn default() -> Self {
        Self { categories: Category::ALL.to_vec(), per_category: 1 }
    }
}

/// Counts of the generated rooms and questions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoomsSummary {
    /// Number of rooms per benchmark.
    pub rooms: BTreeMap<Benchmark, usize>,
    /// Number of questions per category.
    pub questions: BTreeMap<Category, usize>,
}

/// The settings of a folder of rooms.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    rooms: u64,
    seed: u64,
    categories: Vec<String>,
    per_category: usize,
}

/// A room and its benchmark.
struct LaidOutRoom {
    benchmark: Benchmark,
    room: Room,
}

/// Generates `count` rooms from `seed` in the folder `out`. Existing files of the same settings are
/// kept, so an interrupted run resumes.
///
/// # Errors
/// The request is empty, `out` contains rooms with other settings or cannot be written, or FFmpeg
/// fails.
pub fn rooms(
    out: &Path,
    count: u64,
    seed: u64,
    options: &RoomsOptions,
    progress: &dyn Progress,
) -> Result<RoomsSummary> {
    let empty = [
        ("rooms", count == 0),
        ("categories", options.categories.is_empty()),
        ("per_category", options.per_category == 0),
    ];
    if let Some((field, _)) = empty.into_iter().find(|(_, empty)| *empty) {
        return Err(Error::EmptyRequest { field });
    }
    write_or_check_manifest(out, count, seed, options)?;
    let archive = out.join(Benchmark::Vsi.name()).join("rooms.zip");
    progress.start("rooms", Some(count));
    let placed = (0..count).into_par_iter().map(|index| {
        let placed = generate_room(out, &archive, seed, index, options)?;
        progress.advance(1);
        Ok(placed)
    });
    let placed: Result<Vec<LaidOutRoom>> = placed.collect();
    progress.finish();
    let placed = placed?;
    lay_out(out, &archive, &placed)?;
    Ok(summary(&placed))
}

/// Writes the settings to the folder, or checks them against the existing ones.
fn write_or_check_manifest(
    out: &Path,
    rooms: u64,
    seed: u64,
    options: &RoomsOptions,
) -> Result<()> {
    let mut categories: Vec<_> =
        options.categories.iter().map(|category| category.name().to_owned()).collect();
    categories.dedup();
    let requested = Manifest { rooms, seed, categories, per_category: options.per_category };
    let path = out.join("rooms.json");
    match fs::read_to_string(&path) {
        Ok(text) if serde_json::from_str::<Manifest>(&text).is_ok_and(|it| it == requested) => {
            Ok(())
        }
        Ok(found) => {
            let found = found.split_whitespace().collect::<Vec<_>>().join(" ");
            Err(Error::ConflictingRooms { path: out.into(), found })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(write_atomic_with(&path, |out| {
                serde_json::to_writer_pretty(out, &requested)
                    .map_err(|fault| FileError::io("write", &path)(fault.into()))
            })?)
        }
        Err(source) => Err(FileError::io("read", &path)(source).into()),
    }
}

/// Generates one room, writes its scene file and renders its video.
fn generate_room(
    out: &Path,
    archive: &Path,
    seed: u64,
    index: u64,
    options: &RoomsOptions,
) -> Result<LaidOutRoom> {
    let of = |benchmark| {
        let categories = options.categories.iter().copied();
        categories.filter(|category| category.benchmark() == benchmark).collect::<Vec<_>>()
    };
    let turns: Vec<_> = [Benchmark::Vsi, Benchmark::Urban]
        .map(|benchmark| (benchmark, of(benchmark)))
        .into_iter()
        .filter(|(_, categories)| !categories.is_empty())
        .collect();
    let turn = usize::try_from(index % turns.len().max(1) as u64).unwrap_or(0);
    let (benchmark, categories) = &turns[turn];
    let mut room = room(seed, index, categories, options.per_category);
    let (scene_name, stem) = match benchmark {
        Benchmark::Vsi => (format!("room_{index:05}"), format!("room_{index:05}")),
        // A trajectory and its clip, as in `EmbodiedCity_98_2`.
        Benchmark::Urban => (format!("Room_{index}"), format!("Room_{index}_0")),
    };
    room.scene.scene_name = scene_name;
    room.scene.video_id = format!("{stem}.mp4");
    room.scene.write(&out.join("scenes").join(format!("{stem}.json")))?;
    let folder = match benchmark {
        Benchmark::Vsi => staging_folder(archive),
        Benchmark::Urban => out.join(benchmark.name()).join("videos"),
    };
    let video = folder.join(&room.scene.video_id);
    let is_packed = *benchmark == Benchmark::Vsi && archive.exists();
    if !is_packed && !video.exists() {
        fs::create_dir_all(&folder).map_err(FileError::io("create", &folder))?;
        // A killed run leaves one.
        remove_abandoned(&folder)?;
        render_video(&room.scene, seed.wrapping_add(index), &video)?;
    }
    Ok(LaidOutRoom { benchmark: *benchmark, room })
}

/// The folder of VSI-Bench's videos until all are rendered and packed.
fn staging_folder(archive: &Path) -> PathBuf {
    archive.with_file_name(DATASET)
}

/// Packs VSI-Bench's videos and writes both annotation tables.
fn lay_out(out: &Path, archive: &Path, placed: &[LaidOutRoom]) -> Result<()> {
    let of = |benchmark| placed.iter().filter(move |placed| placed.benchmark == benchmark);
    let indoor: Vec<&Room> = of(Benchmark::Vsi).map(|placed| &placed.room).collect();
    let outdoor: Vec<&Room> = of(Benchmark::Urban).map(|placed| &placed.room).collect();
    let mut id = 0..;
    if !indoor.is_empty() {
        pack(archive, &indoor)?;
        let rows: Vec<_> = rows(&indoor, &mut id, vsi_row);
        vsi::write_parquet(&Benchmark::Vsi.annotations(out), &rows)?;
    }
    if !outdoor.is_empty() {
        let rows: Vec<_> = rows(&outdoor, &mut id, urban_row);
        urban::write_parquet(&Benchmark::Urban.annotations(out), &rows)?;
    }
    Ok(())
}

/// One row per question, with ids from `id`.
fn rows<Row>(
    rooms: &[&Room],
    id: &mut impl Iterator<Item = i64>,
    row: fn(i64, &Room, usize) -> Row,
) -> Vec<Row> {
    let questions =
        rooms.iter().flat_map(|room| (0..room.questions.len()).map(move |at| (*room, at)));
    questions.zip(id).map(|((room, at), id)| row(id, room, at)).collect()
}

fn vsi_row(id: i64, room: &Room, at: usize) -> VsiRow {
    let question = &room.questions[at];
    let options = question.options.iter().enumerate();
    VsiRow {
        id,
        dataset: DATASET.to_owned(),
        scene_name: room.scene.scene_name.clone(),
        question_type: question.category.name().to_owned(),
        question: question.stem.clone(),
        ground_truth: question.answer.to_string(),
        options: Some(options.map(|(at, option)| format!("{}. {option}", letter(at))).collect()),
    }
}

fn urban_row(question_id: i64, room: &Room, at: usize) -> UrbanRow {
    let question = &room.questions[at];
    UrbanRow {
        question_id,
        video_id: room.scene.video_id.clone(),
        question_category: question.category.name().to_owned(),
        question: question.text.clone(),
        answer: question.answer.to_string(),
    }
}

/// Packs the rooms' videos into the archive, if it does not exist, and removes the staging folder.
fn pack(archive: &Path, rooms: &[&Room]) -> Result<()> {
    let loose = staging_folder(archive);
    if !archive.exists() {
        let zip_error = |source| Error::Zip { path: archive.into(), source };
        write_atomic_with(archive, |out| {
            let mut zip = ZipWriter::new(out);
            // Video is already compressed.
            let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
            for room in rooms {
                let name = &room.scene.video_id;
                let path = loose.join(name);
                zip.start_file(format!("{DATASET}/{name}"), stored).map_err(zip_error)?;
                let mut video = File::open(&path).map_err(FileError::io("read", &path))?;
                io::copy(&mut video, &mut zip).map_err(FileError::io("write", archive))?;
            }
            zip.finish().map(|_| ()).map_err(zip_error)
        })?;
    }
    match fs::remove_dir_all(&loose) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError::io("remove", &loose)(error).into())
        }
        _ => Ok(()),
    }
}

fn summary(placed: &[LaidOutRoom]) -> RoomsSummary {
    let mut summary = RoomsSummary::default();
    for LaidOutRoom { benchmark, room } in placed {
        *summary.rooms.entry(*benchmark).or_default() += 1;
        for question in &room.questions {
            *summary.questions.entry(question.category).or_default() += 1;
        }
    }
    summary
}

#[cfg(test)]
mod tests {
    use embodied_r_data::progress::Silent;
    use embodied_r_data::scene::Scene;

    use super::*;
    use crate::captions::captions_at;
    use crate::rationale::rationale;
    use crate::world::keyframes_by_pose;

    fn made(out: &Path, seed: u64) -> Result<RoomsSummary> {
        let options = RoomsOptions {
            categories: vec![Category::AppearanceOrder, Category::LandmarkPosition],
            per_category: 2,
        };
        rooms(out, 3, seed, &options, &Silent)
    }

    fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(files(&path));
            } else {
                found.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
        found
    }

    #[test]
    fn rooms_have_the_benchmarks_layout_and_a_second_run_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path();
        let summary = made(out, 1).unwrap();
        assert_eq!(summary.rooms, [(Benchmark::Vsi, 2), (Benchmark::Urban, 1)].into());
        let before = files(out);
        let names: Vec<_> = before
            .keys()
            .map(|path| path.strip_prefix(out).unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(
            names,
            [
                "UrbanVideo-Bench/MCQ.parquet",
                "UrbanVideo-Bench/videos/Room_1_0.mp4",
                "VSI-Bench/rooms.zip",
                "VSI-Bench/test-00000-of-00001.parquet",
                "rooms.json",
                "scenes/Room_1_0.json",
                "scenes/room_00000.json",
                "scenes/room_00002.json",
            ]
        );
        check_tables(out);
        check_archive(out);

        fs::remove_file(out.join("UrbanVideo-Bench/videos/Room_1_0.mp4")).unwrap();
        made(out, 1).unwrap();
        assert_eq!(files(out), before);
        let error = made(out, 2).unwrap_err();
        assert!(matches!(error, Error::ConflictingRooms { .. }), "{error}");
        assert_eq!(files(out), before);
    }

    fn check_tables(out: &Path) {
        let rows = vsi::read_parquet(&Benchmark::Vsi.annotations(out)).unwrap();
        assert_eq!(rows.len(), 4);
        for (id, row) in rows.iter().enumerate() {
            assert_eq!(row.id, id as i64);
            assert_eq!(row.question_type, "obj_appearance_order");
            let text = vsi::question_text(&row.question, row.options.as_deref());
            check_answer(out, &row.scene_name, &text, &row.ground_truth);
        }
        let rows = urban::read_parquet(&Benchmark::Urban.annotations(out)).unwrap();
        assert_eq!(rows.len(), 2);
        for (row, id) in rows.iter().zip(4..) {
            assert_eq!(row.question_id, id);
            assert_eq!(row.question_category, "Landmark Position");
            let stem = row.video_id.strip_suffix(".mp4").unwrap();
            check_answer(out, stem, &row.question, &row.answer);
        }
    }

    fn check_answer(out: &Path, stem: &str, text: &str, answer: &str) {
        let scene = Scene::read(&out.join("scenes").join(format!("{stem}.json"))).unwrap();
        let found = rationale(text, &captions_at(&scene, &keyframes_by_pose(&scene))).unwrap();
        assert_eq!(found.answer.to_string(), answer);
    }

    fn check_archive(out: &Path) {
        let file = File::open(out.join("VSI-Bench/rooms.zip")).unwrap();
        let archive = zip::ZipArchive::new(file).unwrap();
        let mut names: Vec<_> =
            archive.file_names().map(|name| name.unwrap().into_owned()).collect();
        names.sort_unstable();
        assert_eq!(names, ["rooms/room_00000.mp4", "rooms/room_00002.mp4"]);
    }

    #[test]
    fn an_empty_request_is_an_error_that_names_the_setting() {
        let folder = tempfile::tempdir().unwrap();
        let error = rooms(folder.path(), 0, 1, &RoomsOptions::default(), &Silent).unwrap_err();
        assert!(error.to_string().contains("`rooms`"), "{error}");
        assert!(files(folder.path()).is_empty());
    }
}
