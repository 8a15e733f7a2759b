//! What every network connector shares: TLS as the `tls` block asks for it, addresses and URLs.
//!
//! Sources and sinks never know each other, so what both need of the network is here; it knows no protocol.

pub mod address;
pub mod tls;
pub mod url;
