//! Every secret of a configuration: read at the start, and again at a reload.

use anyhow::bail;

use super::in_force::InForce;
use super::roster::Preshared;
use crate::config::key_file::{self, KeyFileError};
use crate::config::uapi::Setting;
use crate::config::{Config, Connection, Tunnel};
use crate::tunnel::key::{PresharedKey, PrivateKey, PublicKey};

/// All of them, read before anything is touched.
pub(super) struct Keys {
    pub(super) private: PrivateKey,
    pub(super) preshared: Preshared,
}

impl Keys {
    pub(super) fn read(config: &Config) -> anyhow::Result<Self> {
        let private = key_file::private_key_of(&config.interface)?;
        let own = private.public();
        let preshared = config.tunnels().map(|(connection, tunnel)| {
            is_another(&own, connection, tunnel)?;
            Ok(setting(tunnel.preshared_key_file.as_deref().map(key_file::read_preshared_key).transpose()?))
        });
        Ok(Self { preshared: preshared.collect::<anyhow::Result<_>>()?, private })
    }
}

/// What a reload found. A daemon that gave up its privileges may no longer read what it once could; such a key stays.
pub(super) struct Reread {
    /// None = the one in use.
    pub(super) private: Option<PrivateKey>,
    pub(super) preshared: Preshared,
    /// Keys that are others now, as a difference names them.
    pub(super) changes: Vec<String>,
    /// Keys that stay because they could not be read.
    pub(super) notes: Vec<String>,
}

impl Reread {
    /// The keys of `config`, which is to be in force instead.
    pub(super) fn of(config: &Config, in_force: &InForce) -> anyhow::Result<Self> {
        let mut keys = Self { private: None, preshared: Vec::new(), changes: Vec::new(), notes: Vec::new() };
        keys.read_private(config, in_force)?;
        let own = keys.private.as_ref().map_or_else(|| *in_force.identity.public(), PrivateKey::public);
        for (connection, tunnel) in config.tunnels() {
            is_another(&own, connection, tunnel)?;
            let psk = keys.read_preshared(connection, tunnel, in_force)?;
            keys.preshared.push(psk);
        }
        Ok(keys)
    }

    fn read_private(&mut self, config: &Config, in_force: &InForce) -> anyhow::Result<()> {
        let (file, before) = (&config.interface.private_key_file, &in_force.config.interface.private_key_file);
        match key_file::private_key_of(&config.interface) {
            Ok(key) if key.public() == *in_force.identity.public() => {}
            Ok(key) => {
                self.changes.push(format!("~ interface: private key is another, its public key {}", key.public()));
                self.private = Some(key);
            }
            Err(KeyFileError::Denied(_)) if file == before => self.notes.push(kept("private key", file)),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn read_preshared(
        &mut self,
        connection: &Connection,
        tunnel: &Tunnel,
        in_force: &InForce,
    ) -> anyhow::Result<Setting<PresharedKey>> {
        let known = in_force.tunnel(&tunnel.public_key);
        let Some(file) = &tunnel.preshared_key_file else { return Ok(Setting::Clear) };
        let key = match key_file::read_preshared_key(file) {
            Ok(key) => key,
            Err(KeyFileError::Denied(_))
                if known.is_some_and(|(before, _)| before.preshared_key_file.as_ref() == Some(file)) =>
            {
                self.notes.push(kept(&format!("preshared key of {}", connection.name), file));
                return Ok(Setting::Keep);
            }
            Err(error) => return Err(error.into()),
        };
        if known.is_some_and(|(_, peer)| !peer.has_psk(Some(&key))) {
            let place = format!("connection {}, tunnel {}", connection.name, tunnel.name);
            self.changes.push(format!("~ {place}: preshared key is another"));
        }
        Ok(Setting::Set(key))
    }
}

fn kept(which: &str, file: &std::path::Path) -> String {
    format!(
        "{which}: {} can no longer be read by this daemon, which gave up its privileges; the key in use stays (for \
         another: restart the daemon, or chown root:linkspan and chmod 640 the file)",
        file.display()
    )
}

fn is_another(own: &PublicKey, connection: &Connection, tunnel: &Tunnel) -> anyhow::Result<()> {
    if tunnel.public_key == *own {
        bail!(
            "connection {}: public_key is this machine's own key; write the far machine's, as `linkspan pubkey` prints \
             it there",
            connection.name
        );
    }
    Ok(())
}

fn setting(key: Option<PresharedKey>) -> Setting<PresharedKey> {
    key.map_or(Setting::Clear, Setting::Set)
}
