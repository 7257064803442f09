//! TLS above a connection. ureq's own has no place for another check of certificates.

use std::{
    io::{self, Read, Write},
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName},
};
use ureq::{
    Error,
    http::Uri,
    unversioned::transport::{
        Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
    },
};

use crate::{
    Own,
    verify::{Anything, Verifier},
};

/// Puts TLS on connections to addresses that ask for it.
#[derive(Debug, Clone)]
pub struct Tls(Arc<ClientConfig>);

impl Tls {
    /// TLS with servers whose certificate is `trusted`, or signed by one that is. `own` is for servers that ask for a
    /// certificate. `insecure` accepts any server.
    ///
    /// # Errors
    /// When our own certificate and key cannot be used together.
    pub fn new(
        trusted: Vec<CertificateDer<'static>>,
        own: Option<Own>,
        insecure: bool,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let builder = builder.dangerous();
        let builder = match insecure {
            true => builder.with_custom_certificate_verifier(Arc::new(Anything)),
            false => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(trusted.iter().cloned());
                builder.with_custom_certificate_verifier(Arc::new(Verifier::new(trusted, roots)))
            }
        };
        let config = match own {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
            None => builder.with_no_client_auth(),
        };
        Ok(Self(Arc::new(config)))
    }

    /// Shakes hands with the server at `uri`.
    ///
    /// # Errors
    /// When the server is not trusted, does not speak TLS, or does not answer.
    pub fn encrypt<In: Transport>(
        &self,
        uri: &Uri,
        details: &ConnectionDetails,
        connection: In,
    ) -> Result<Encrypted, Error> {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Error::Other("its name cannot be in a certificate".into()))?;
        let mut connecting = ClientConnection::new(self.0.clone(), name).map_err(io::Error::other)?;
        let mut socket =
            TransportAdapter::new(Box::new(connection) as Box<dyn Transport>, details.current_time.clone());
        socket.set_timeout(details.timeout);
        connecting.complete_io(&mut socket)?;
        let buffers =
            LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Encrypted { buffers, stream: StreamOwned::new(connecting, socket) })
    }
}

impl<In: Transport> Connector<In> for Tls {
    type Out = Either<In, Encrypted>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        match chained {
            Some(connection) if details.needs_tls() => {
                self.encrypt(details.uri, details, connection).map(|encrypted| Some(Either::B(encrypted)))
            }
            plain => Ok(plain.map(Either::A)),
        }
    }
}

/// A connection with TLS.
pub struct Encrypted {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl Transport for Encrypted {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.get_mut().set_timeout(timeout);
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        Ok(self.stream.write_all(output)?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.get_mut().set_timeout(timeout);
        let count = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

/// Prints no secret.
impl std::fmt::Debug for Encrypted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encrypted")
    }
}
