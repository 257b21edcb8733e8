//! What comes before the samples in a shorter file.

use super::boxes::{write, write_table};
use super::tables::runs;
use super::{Layout, Part, Sample};

impl Layout {
    /// The parts of a file with the samples at the ascending `places` alone.
    pub(in super::super) fn parts(&self, samples: &[Sample], places: &[usize]) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        for sample in places.iter().map(|place| &samples[*place]) {
            Part::add_range(&mut parts, sample.offset, u64::from(sample.size));
        }
        let bytes = parts.iter().map(Part::length).sum();
        parts.insert(0, Part::Bytes(self.head(samples, places, bytes)));
        parts
    }

    /// All that comes before the samples' `bytes`.
    fn head(&self, samples: &[Sample], places: &[usize], bytes: u64) -> Vec<u8> {
        let mut head = Vec::new();
        write(b"ftyp", &[b"isom\0\0\x02\0isomiso2mp41"], &mut head);
        let length = head.len() + self.movie(samples, places, 0).len() + 16;
        // The samples follow the head of a box with a wide length.
        head.extend(self.movie(samples, places, length as u32));
        head.extend(1u32.to_be_bytes());
        head.extend(b"mdat");
        head.extend((bytes + 16).to_be_bytes());
        head
    }

    /// The index, in which the samples' bytes begin at `first`.
    fn movie(&self, samples: &[Sample], places: &[usize], first: u32) -> Vec<u8> {
        let parts = &self.parts;
        let table = self.table(samples, places, first);
        let mut information = Vec::new();
        write(b"vmhd", &[&parts.video_head], &mut information);
        write(b"dinf", &[&parts.references], &mut information);
        write(b"stbl", &[&table], &mut information);
        let mut media = Vec::new();
        write(b"mdhd", &[&parts.media_head], &mut media);
        write(b"hdlr", &[&parts.handler], &mut media);
        write(b"minf", &[&information], &mut media);
        let mut track = Vec::new();
        write(b"tkhd", &[&parts.track_head], &mut track);
        write(b"mdia", &[&media], &mut track);
        let mut movie = Vec::new();
        write(b"mvhd", &[&parts.movie_head], &mut movie);
        write(b"trak", &[&track], &mut movie);
        let mut whole = Vec::new();
        write(b"moov", &[&movie], &mut whole);
        whole
    }

    /// The tables of the samples, which lie end to end from `first` on.
    fn table(&self, samples: &[Sample], places: &[usize], first: u32) -> Vec<u8> {
        let kept = || places.iter().map(|place| (&samples[*place], self.decoded[*place]));
        let steps = kept().zip(kept().skip(1)).map(|(of, next)| (next.1 - of.1) as u32);
        let delays = kept().map(|(sample, decoded)| (sample.shown - decoded as i64) as u32);
        let is_key =
            |(number, (sample, _)): (u32, (&Sample, u64))| sample.is_key.then_some([number]);
        let keys: Vec<[u32; 1]> = (1..).zip(kept()).filter_map(is_key).collect();
        let mut sizes = vec![0; 8];
        sizes.extend((places.len() as u32).to_be_bytes());
        sizes.extend(kept().flat_map(|(sample, _)| sample.size.to_be_bytes()));

        let mut table = Vec::new();
        write(b"stsd", &[&self.parts.descriptions], &mut table);
        write_table(b"stts", 0, &runs(steps.chain([1])), &mut table);
        write_table(b"ctts", 1, &runs(delays), &mut table);
        write_table(b"stss", 0, &keys, &mut table);
        write_table(b"stsc", 0, &[[1, places.len() as u32, 1]], &mut table);
        write(b"stsz", &[&sizes], &mut table);
        write_table(b"stco", 0, &[[first]], &mut table);
        table
    }
}
