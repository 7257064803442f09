//! Checks a name and a password with a registry.

use crate::{Client, Error, Login, places, repository::Repository};

impl Client {
    /// Checks that `registry` (a host) accepts this name and password.
    ///
    /// # Errors
    /// When the registry rejects the login or does not answer.
    pub fn log_in(&self, registry: &str, login: &Login) -> Result<(), Error> {
        let insecure = self.options().insecure || places::is_insecure(registry)?;
        let (http, base) = self.reach(registry, insecure)?;
        let url = base.join("/v2/").map_err(|_| Error::Host(registry.to_owned()))?;
        let repository = Repository::whole(http, base, self.options().retries, login.clone().into());
        repository
            .patiently(&|_, _| {}, || repository.expect("GET", url.clone(), &[], None, &[200]))
            .map(drop)
    }
}
