//! Ranks over NCCL.

use std::sync::Arc;

use super::Communicator;
use crate::control_plane::{Client, Rendezvous, listen};
use crate::error::{Error, Result};
use crate::link::nccl::{Cuda, ID, NcclApi as _, NcclLink};
use crate::options::CommunicatorOptions;
use crate::rank_info::RankInfo;
use crate::rank_state::RankState;

impl Communicator {
    /// Ranks over NCCL, one per process and GPU. `device` is the GPU's index among those visible to this process. Rank
    /// 0 listens on the address of `rendezvous`.
    ///
    /// # Errors
    ///
    /// The rendezvous or the initialization of NCCL's communicator fails.
    pub fn nccl(
        rank_info: &RankInfo,
        rendezvous: &Rendezvous,
        device: usize,
        options: &CommunicatorOptions,
    ) -> Result<Self> {
        let rank_state = Arc::new(RankState::new(rank_info.rank, &rank_info.host));
        let (rank_info, rendezvous, own) = (rank_info.clone(), rendezvous.clone(), options.clone());
        Self::start(&rank_state, rank_info.world_size, options.clone(), move |rank_state| {
            let listener = (rank_info.rank == 0).then(|| listen(rendezvous.address));
            let listener = listener.transpose()?;
            let shared = Arc::clone(&rank_state);
            let client = Client::join(
                &rendezvous,
                listener,
                rank_info.world_size,
                &rank_info.host,
                &own,
                shared,
            )?;
            let joined = Cuda::new(device).and_then(|cuda| {
                let id = if rank_info.rank == 0 { cuda.unique_id()?.to_vec() } else { Vec::new() };
                let id = client.broadcast(id, own.join_timeout)?;
                let id = <[u8; ID]>::try_from(id).map_err(|id| Error::Nccl {
                    what: "receive NCCL's unique id from rank 0",
                    why: format!("got {} bytes instead of {ID}", id.len()),
                })?;
                let here = (rank_info.rank, rank_info.world_size);
                NcclLink::join(cuda, &id, here, own.join_timeout, rank_state)
            });
            // The other ranks wait in the initialization, so they must learn that this one failed.
            let link = joined.map_err(|error| match &error {
                Error::RankFailed(_) => error,
                _ => client.fail(&error.to_string()),
            })?;
            Ok((Box::new(link) as _, client))
        })
    }
}
