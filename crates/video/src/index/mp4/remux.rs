//! Remuxing: the boxes before the samples of an excerpt.

use super::super::remuxer::{ExcerptPart, Remuxer};
use super::boxes::{write, write_table};
use super::tables::runs;
use super::{Mp4Remuxer, Sample};

impl Remuxer for Mp4Remuxer {
    fn format(&self) -> &'static str {
        "mov"
    }

    fn parts(&self, samples: &[Sample], positions: &[usize]) -> Vec<ExcerptPart> {
        let mut parts: Vec<ExcerptPart> = Vec::new();
        for sample in positions.iter().map(|position| &samples[*position]) {
            ExcerptPart::add_range(&mut parts, sample.offset, u64::from(sample.size));
        }
        let bytes = parts.iter().map(ExcerptPart::length).sum();
        parts.insert(0, ExcerptPart::Bytes(self.header(samples, positions, bytes)));
        parts
    }
}

impl Mp4Remuxer {
    /// Everything before the samples, which have `bytes` bytes.
    fn header(&self, samples: &[Sample], positions: &[usize], bytes: u64) -> Vec<u8> {
        let mut header = Vec::new();
        write(b"ftyp", &[b"isom\0\0\x02\0isomiso2mp41"], &mut header);
        let length = header.len() + self.movie(samples, positions, 0).len() + 16;
        // The samples follow an `mdat` header with a 64-bit size.
        header.extend(self.movie(samples, positions, length as u32));
        header.extend(1u32.to_be_bytes());
        header.extend(b"mdat");
        header.extend((bytes + 16).to_be_bytes());
        header
    }

    /// The `moov` box; the samples begin at offset `first`.
    fn movie(&self, samples: &[Sample], positions: &[usize], first: u32) -> Vec<u8> {
        let parts = &self.parts;
        let table = self.table(samples, positions, first);
        let mut information = Vec::new();
        write(b"vmhd", &[&parts.video_header], &mut information);
        write(b"dinf", &[&parts.references], &mut information);
        write(b"stbl", &[&table], &mut information);
        let mut media = Vec::new();
        write(b"mdhd", &[&parts.media_header], &mut media);
        write(b"hdlr", &[&parts.handler], &mut media);
        write(b"minf", &[&information], &mut media);
        let mut track = Vec::new();
        write(b"tkhd", &[&parts.track_header], &mut track);
        write(b"mdia", &[&media], &mut track);
        let mut movie = Vec::new();
        write(b"mvhd", &[&parts.movie_header], &mut movie);
        write(b"trak", &[&track], &mut movie);
        let mut whole = Vec::new();
        write(b"moov", &[&movie], &mut whole);
        whole
    }

    /// The sample tables; the samples are contiguous from offset `first` on.
    fn table(&self, samples: &[Sample], positions: &[usize], first: u32) -> Vec<u8> {
        let kept = || positions.iter().map(|position| (&samples[*position], self.dts[*position]));
        let durations = kept().zip(kept().skip(1)).map(|(of, next)| (next.1 - of.1) as u32);
        let composition_offsets = kept().map(|(sample, dts)| (sample.pts - dts as i64) as u32);
        let is_key =
            |(number, (sample, _)): (u32, (&Sample, u64))| sample.is_key.then_some([number]);
        let keys: Vec<[u32; 1]> = (1..).zip(kept()).filter_map(is_key).collect();
        let mut sizes = vec![0; 8];
        sizes.extend((positions.len() as u32).to_be_bytes());
        sizes.extend(kept().flat_map(|(sample, _)| sample.size.to_be_bytes()));

        let mut table = Vec::new();
        write(b"stsd", &[&self.parts.descriptions], &mut table);
        write_table(b"stts", 0, &runs(durations.chain([1])), &mut table);
        write_table(b"ctts", 1, &runs(composition_offsets), &mut table);
        write_table(b"stss", 0, &keys, &mut table);
        write_table(b"stsc", 0, &[[1, positions.len() as u32, 1]], &mut table);
        write(b"stsz", &[&sizes], &mut table);
        write_table(b"stco", 0, &[[first]], &mut table);
        table
    }
}
