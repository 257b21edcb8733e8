//! Ranks of GPUs.

use std::sync::Arc;

use super::Communicator;
use crate::error::{Error, Result};
use crate::link::nccl::{Cuda, ID, Library as _, NcclLink};
use crate::options::Options;
use crate::place::Place;
use crate::plane::{Client, Meeting, listen};
use crate::watch::Watch;

impl Communicator {
    /// Ranks over NCCL, one a process and a GPU, which is the `device`th that this process sees. They come together at
    /// `meeting`, where rank 0 listens.
    ///
    /// # Errors
    ///
    /// Rank 0 cannot listen there, the ranks cannot reach it or do not fit together, or NCCL cannot join them.
    pub fn nccl(
        place: &Place,
        meeting: &Meeting,
        device: usize,
        options: &Options,
    ) -> Result<Self> {
        let watch = Arc::new(Watch::new(place.rank, &place.host));
        let (place, meeting, own) = (place.clone(), meeting.clone(), options.clone());
        Self::start(&watch, place.world_size, options.clone(), move |watch| {
            let listener = (place.rank == 0).then(|| listen(meeting.address));
            let listener = listener.transpose()?;
            let shared = Arc::clone(&watch);
            let client =
                Client::join(&meeting, listener, place.world_size, &place.host, &own, shared)?;
            let joined = Cuda::new(device).and_then(|cuda| {
                let id = if place.rank == 0 { cuda.unique_id()?.to_vec() } else { Vec::new() };
                let id = client.share(id, own.join_within)?;
                let id = <[u8; ID]>::try_from(id).map_err(|id| Error::Nccl {
                    what: "learn NCCL's id from rank 0",
                    why: format!("it handed round {} bytes, not {ID}", id.len()),
                })?;
                let here = (place.rank, place.world_size);
                NcclLink::join(cuda, &id, here, own.join_within, watch)
            });
            // The others wait for this rank, and are told why in vain.
            let link = joined.map_err(|error| match &error {
                Error::Lost(_) => error,
                _ => client.fail(&error.to_string()),
            })?;
            Ok((Box::new(link) as _, client))
        })
    }
}
