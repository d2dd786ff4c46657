//! The ENI manager: attaches ENIs, keeps the warm pool, leases slots, reaps.
