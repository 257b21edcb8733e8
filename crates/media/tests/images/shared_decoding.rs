//! Ranks that share the decoding of a run's images.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use embodied_r_dist::ProcessGroup;
use embodied_r_dist::{Communicator, CommunicatorOptions};
use embodied_r_media::source::{ImageSource, ReadError};
use embodied_r_media::table::ImageTable;
use embodied_r_vision::{FrameTimes, Frames, ImageLayout, SampledVideo, VisionProcessor};
use image::{Rgb, RgbImage};

use crate::folder;

/// An image, or a video of two frames, that counts how often it is decoded, and on which ranks its file is missing.
#[derive(Debug)]
struct File {
    level: u8,
    reads: Arc<[AtomicUsize]>,
    is_missing: bool,
}

impl ImageSource for File {
    fn read(&self) -> Result<Frames, ReadError> {
        self.find()?;
        self.reads[usize::from(self.level)].fetch_add(1, Ordering::SeqCst);
        let image = RgbImage::from_pixel(56, 56, Rgb([self.level; 3]));
        Ok(match self.level % 2 {
            0 => Frames::Image(image),
            _ => Frames::Video(SampledVideo {
                frames: vec![image.clone(), image],
                times: FrameTimes::at_rate(2, 4.0),
            }),
        })
    }

    fn paths(&self) -> Vec<String> {
        Vec::new()
    }

    fn find(&self) -> Result<(), ReadError> {
        match self.is_missing {
            true => Err(format!("`{}` is missing", self.level).into()),
            false => Ok(()),
        }
    }
}

type Layouts = Vec<Result<ImageLayout, String>>;

/// What a rank has after sharing: the layouts of all files, and how many of them it decoded itself.
type Shared = Result<(Layouts, usize), String>;

/// What each of `ranks` ranks has of `count(rank)` files, and how often each file was decoded. `missing` are a rank and a
/// file.
fn shared(
    ranks: usize,
    count: impl Fn(usize) -> usize + Sync,
    missing: &[(usize, usize)],
) -> (Vec<Shared>, Vec<usize>) {
    let reads: Arc<[AtomicUsize]> = (0..8).map(|_| AtomicUsize::default()).collect();
    let communicators = Communicator::threads(ranks, &CommunicatorOptions::default()).unwrap();
    let on_rank = |communicator: Communicator| {
        let process_group = ProcessGroup::new(communicator);
        let rank = process_group.rank();
        let source = |index: usize| -> Arc<dyn ImageSource> {
            let is_missing = missing.contains(&(rank, index));
            Arc::new(File { level: index as u8, reads: reads.clone(), is_missing })
        };
        let sources: Vec<_> = (0..count(rank)).map(source).collect();
        let mut table = ImageTable::new(VisionProcessor::of_model(&folder()).unwrap());
        let calls = AtomicUsize::new(0);
        let on_read = || {
            calls.fetch_add(1, Ordering::SeqCst);
        };
        let layouts = table.add_shared(&sources, &process_group, &on_read);
        // A rank that fails leaves only once the others have read what it sent.
        process_group.communicator().finish().unwrap();
        let layouts = layouts.map_err(|error| error.to_string())?;
        for layout in layouts.iter().flatten() {
            assert_eq!(table.layout_of(layout.digest()).unwrap(), *layout);
        }
        let layouts = layouts.into_iter().map(|layout| layout.map_err(|error| error.to_string()));
        Ok((layouts.collect(), calls.into_inner()))
    };
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = communicators
            .into_iter()
            .map(|communicator| scope.spawn(|| on_rank(communicator)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    (results, reads.iter().map(|reads| reads.load(Ordering::SeqCst)).collect())
}

#[test]
fn each_file_is_decoded_by_one_rank_and_all_know_it() {
    let (alone, _) = shared(1, |_| 7, &[]);
    let (expected, calls) = alone[0].clone().unwrap();
    assert_eq!((expected.len(), calls), (7, 7));
    for ranks in [2, 3, 8] {
        let (results, reads) = shared(ranks, |_| 7, &[]);
        assert_eq!(reads, [1, 1, 1, 1, 1, 1, 1, 0], "{ranks} ranks");
        let results: Vec<_> = results.into_iter().map(Result::unwrap).collect();
        assert!(results.iter().all(|(layouts, _)| *layouts == expected), "{ranks} ranks");
        assert_eq!(results.iter().map(|(_, calls)| calls).sum::<usize>(), 7);
        let most = results.iter().map(|(_, calls)| *calls).max();
        assert_eq!(most, Some(7_usize.div_ceil(ranks)));
    }
}

#[test]
fn a_file_that_one_rank_misses_is_wrong_for_all() {
    // Rank 0 decodes files 0 to 2, and rank 1 the others. 1 is missing where it is not decoded, 2 where it is, and 5 on
    // both.
    let (results, _) = shared(2, |_| 7, &[(1, 1), (0, 2), (0, 5), (1, 5)]);
    for result in results {
        let (layouts, _) = result.unwrap();
        let errors: Vec<_> = layouts.iter().map(|layout| layout.as_ref().err()).collect();
        let expected = ["`1` is missing (on rank 1)", "`2` is missing", "`5` is missing"];
        for (index, error) in errors.into_iter().enumerate() {
            let found = [1, 2, 5].iter().position(|wrong| *wrong == index);
            assert_eq!(error.map(String::as_str), found.map(|found| expected[found]), "{index}");
        }
    }
}

#[test]
fn ranks_with_other_data_are_refused() {
    let (results, _) = shared(2, |rank| 6 + rank, &[]);
    for (rank, result) in results.into_iter().enumerate() {
        let (own, other) = (6 + rank, 7 - rank);
        let expected = format!("rank {} failed: its data has {other} images", 1 - rank);
        let error = result.unwrap_err();
        assert!(error.starts_with(&expected) && error.ends_with(&format!("has {own}")), "{error}");
    }
}
