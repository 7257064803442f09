//! Images from and to registries: the OCI distribution-spec as a client, over blocking HTTP.
