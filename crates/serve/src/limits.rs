//! Limits on connections and on the memory of requests.

use std::time::Duration;

/// Limits on connections and on the memory of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpLimits {
    /// Maximum number of connections. At the limit, a new connection replaces the one that has been without a request for
    /// longest, or else the one whose body is slowest, below 4 KiB per second. If there is none within a moment, the new
    /// connection gets status 503.
    pub limit_concurrency: usize,
    /// How long a client may take to send the header of a request.
    pub timeout_header: Duration,
    /// How long a client may take to send the body of a request, plus one second per 64 KiB received.
    pub timeout_body: Duration,
    /// How long a client may read nothing of a response.
    pub timeout_send: Duration,
    /// How long a connection may be idle between requests.
    pub timeout_keep_alive: Duration,
    /// Bytes of request bodies that are received and parsed at a time, including the image files of their URLs. A client
    /// has a share of half of it, or the largest body if that is more; beyond its share it leaves a sixteenth free.
    pub request_memory_bytes: usize,
    /// Pixels of the images and videos of one prompt, before they are resized.
    pub max_prompt_pixels: u64,
}
