//! Decodes the images of a coming step while the current one goes on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use candle_core::Device;
use embodied_r_vision::Pixels;
use rayon::prelude::*;

use crate::error::Result;
use crate::lock::locked;
use crate::table::ImageTable;

/// The patches of images, cut on threads of their own.
#[derive(Debug)]
pub struct Prefetch {
    threads: usize,
    running: Mutex<Option<Cutting>>,
}

/// The patches of images by digest.
type Cut = HashMap<u128, Result<Pixels>>;

/// Images that are being cut.
#[derive(Debug)]
struct Cutting {
    /// Once true, no further image is begun.
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Cut>,
}

impl Prefetch {
    /// For a model on this device: a GPU leaves all cores to the images, a CPU is busy with the model.
    #[must_use]
    pub fn new(device: &Device) -> Self {
        let threads = if device.is_cpu() { 1 } else { rayon::current_num_threads() };
        Self { threads, running: Mutex::default() }
    }

    /// Starts to cut the images of these digests, unless others are being cut.
    pub fn start(&self, table: &Arc<ImageTable>, digests: Vec<u128>) {
        let mut running = locked(&self.running);
        if digests.is_empty() || running.is_some() {
            return;
        }
        let (table, threads, stop) =
            (table.clone(), self.threads, Arc::new(AtomicBool::new(false)));
        let is_stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let cut = |digest: u128| {
                let is_open = !is_stopped.load(Ordering::Relaxed);
                is_open.then(|| (digest, table.pixels(digest)))
            };
            // Not in the pool of the model, whose work would wait behind that of images.
            let pool = || rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            match (threads > 1).then(pool) {
                Some(Ok(pool)) => {
                    pool.install(|| digests.into_par_iter().filter_map(cut).collect())
                }
                // One thread, or there are no more.
                _ => digests.into_iter().filter_map(cut).collect(),
            }
        });
        *running = Some(Cutting { stop, thread });
    }

    /// The patches of images: those that were cut, and the others on all cores.
    ///
    /// # Errors
    /// An image file has changed.
    pub fn take(&self, table: &ImageTable, digests: &[u128]) -> Result<Vec<Pixels>> {
        let mut cut = self.stopped();
        let found: Vec<(u128, Option<Result<Pixels>>)> =
            digests.iter().map(|digest| (*digest, cut.remove(digest))).collect();
        let pixels = |(digest, cut): (u128, Option<Result<Pixels>>)| match cut {
            Some(cut) => cut,
            None => table.pixels(digest),
        };
        found.into_par_iter().map(pixels).collect()
    }

    /// What was cut; images that are not begun are left out, since one thread would take longer than all cores.
    fn stopped(&self) -> Cut {
        let Some(Cutting { stop, thread }) = locked(&self.running).take() else {
            return HashMap::new();
        };
        stop.store(true, Ordering::Relaxed);
        match thread.join() {
            Ok(cut) => cut,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use embodied_r_vision::{Frames, VisionProcessor};
    use image::{Rgb, RgbImage};

    use super::*;
    use crate::source::{ImageSource, ReadError};

    /// Ends a test that would hang.
    const HANG: Duration = Duration::from_secs(60);

    /// An image of one gray level that says when it is read, and then waits to be released.
    #[derive(Debug)]
    struct Waiting {
        level: u8,
        reads: Mutex<Sender<u8>>,
        release: Mutex<Receiver<()>>,
    }

    impl ImageSource for Waiting {
        fn read(&self) -> std::result::Result<Frames, ReadError> {
            locked(&self.reads).send(self.level)?;
            locked(&self.release).recv_timeout(HANG)?;
            Ok(Frames::Image(RgbImage::from_pixel(56, 56, Rgb([self.level; 3]))))
        }

        fn paths(&self) -> Vec<String> {
            vec![self.level.to_string()]
        }
    }

    /// A table of images of these levels, what they say, and what releases each of them once.
    fn table(levels: &[u8]) -> (Arc<ImageTable>, Vec<u128>, Receiver<u8>, Vec<Sender<()>>) {
        let (said, reads) = channel();
        let (mut sources, mut releases) = (Vec::<Arc<dyn ImageSource>>::new(), Vec::new());
        for &level in levels {
            let (release, waits) = channel();
            release.send(()).unwrap();
            releases.push(release);
            let (reads, release) = (Mutex::new(said.clone()), Mutex::new(waits));
            sources.push(Arc::new(Waiting { level, reads, release }));
        }
        let processor = VisionProcessor::published("Qwen2.5-VL-3B").unwrap();
        let mut table = ImageTable::new(processor);
        let layouts = table.add_all(&sources, &|| ());
        let digests = layouts.into_iter().map(|layout| layout.unwrap().digest()).collect();
        levels.iter().for_each(|_| _ = reads.recv_timeout(HANG).unwrap());
        (Arc::new(table), digests, reads, releases)
    }

    fn first_value(pixels: &Pixels) -> f32 {
        pixels.patches.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0]
    }

    #[test]
    fn images_that_are_not_begun_are_left_to_all_cores() {
        let (table, digests, reads, releases) = table(&[10, 20, 30]);
        let prefetch = Prefetch::new(&Device::Cpu);
        prefetch.start(&table, digests.clone());
        assert_eq!(reads.recv_timeout(HANG).unwrap(), 10);
        locked(&prefetch.running).as_ref().unwrap().stop.store(true, Ordering::Relaxed);
        releases[0].send(()).unwrap();
        let cut = prefetch.stopped();
        assert_eq!(cut.into_keys().collect::<Vec<_>>(), digests[..1]);
        releases.iter().for_each(|release| release.send(()).unwrap());
        let pixels = prefetch.take(&table, &digests).unwrap();
        assert!(first_value(&pixels[0]) < first_value(&pixels[1]));
        assert!(first_value(&pixels[1]) < first_value(&pixels[2]));
    }

    #[test]
    fn several_threads_cut_images_at_once() {
        let (table, digests, reads, releases) = table(&[10, 20, 30]);
        let prefetch = Prefetch { threads: 3, running: Mutex::default() };
        prefetch.start(&table, digests.clone());
        // None is released before all are being read.
        let mut begun: Vec<u8> = (0..3).map(|_| reads.recv_timeout(HANG).unwrap()).collect();
        begun.sort_unstable();
        assert_eq!(begun, [10, 20, 30]);
        releases.iter().for_each(|release| release.send(()).unwrap());
        let pixels = prefetch.take(&table, &digests).unwrap();
        assert!(first_value(&pixels[0]) < first_value(&pixels[2]));
        assert!(reads.try_recv().is_err(), "an image is read twice");
    }
}
