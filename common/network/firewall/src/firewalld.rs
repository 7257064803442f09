//! firewalld. Only firewalld itself may change its table, so it is asked over D-Bus to put a bridge
//! into a zone that forwards.

use operation::{Cause, Error};

use crate::{
    barrier::Barrier,
    dbus::{Bus, Failure, Method},
};

const NAME: &str = "org.fedoraproject.FirewallD1";
const PATH: &str = "/org/fedoraproject/FirewallD1";
const ZONES: &str = "org.fedoraproject.FirewallD1.zone";
const CONFIG_PATH: &str = "/org/fedoraproject/FirewallD1/config";
const CONFIG: &str = "org.fedoraproject.FirewallD1.config";

/// The zones that forward all packets from their interfaces, the more restrictive one first.
/// NetworkManager adds nm-shared for shared connections, which keeps the host's own services
/// closed. trusted always exists.
const FORWARDING: [&str; 2] = ["nm-shared", "trusted"];

const fn zone_method(member: &str) -> Method<'_> {
    Method { destination: NAME, path: PATH, interface: ZONES, member }
}

/// The zone of the bridge. None if it is in no zone.
fn zone_of(bus: &mut Bus, bridge: &str) -> Result<Option<String>, Failure> {
    let zone: String = bus.call(zone_method("getZoneOfInterface"), &(bridge,))?;
    Ok(Some(zone).filter(|zone| !zone.is_empty()))
}

/// Whether the bridge is in a zone that forwards. False if firewalld is not on the bus.
pub(crate) fn is_let_through(bridge: &str) -> Result<bool, Error> {
    match Bus::system().and_then(|mut bus| zone_of(&mut bus, bridge)) {
        Ok(zone) => Ok(zone.is_some_and(|zone| FORWARDING.contains(&zone.as_str()))),
        Err(Failure::Absent) => Ok(false),
        Err(failure) => Err(error("ask", bridge, failure)),
    }
}

/// The zone change that is needed to let the bridge's packets pass, if any. Called when firewalld's
/// table drops them.
pub(crate) fn barrier(bridge: &str) -> Result<Option<Barrier>, Error> {
    let look = || -> Result<Option<Barrier>, Failure> {
        let mut bus = Bus::system()?;
        let bound = zone_of(&mut bus, bridge)?;
        if bound.as_deref().is_some_and(|zone| FORWARDING.contains(&zone)) {
            return Ok(None);
        }
        let zones: Vec<String> = bus.call(zone_method("getZones"), &())?;
        let [_, always] = FORWARDING;
        let zone = FORWARDING.into_iter().find(|zone| zones.iter().any(|known| known == zone));
        Ok(Some(Barrier::Firewalld { zone: zone.unwrap_or(always).to_owned(), bound }))
    };
    look().map_err(|failure| error("ask", bridge, failure))
}

/// Puts the bridge into the zone, until firewalld reloads its rules.
pub(crate) fn let_through(bridge: &str, barrier: &Barrier) -> Result<(), Error> {
    let Barrier::Firewalld { zone, bound } = barrier else { return Ok(()) };
    if let Some(bound) = bound {
        let object = format!("bridge {bridge:?} to zone {zone} of firewalld");
        let hint = format!("firewall-cmd --zone={zone} --change-interface={bridge}, or --firewall none");
        return Err(Error::new("add", object, format!("it is in zone {bound}")).with_hint(hint));
    }
    let add =
        || -> Result<String, Failure> { Bus::system()?.call(zone_method("addInterface"), &(zone, bridge)) };
    add().map(drop).map_err(|failure| error("add", bridge, failure))
}

/// Removes the bridge from the zone, unless the administrator's configuration puts it there.
pub(crate) fn withdraw(bridge: &str) -> Result<(), Error> {
    let remove = || -> Result<(), Failure> {
        let mut bus = Bus::system()?;
        let Some(zone) = zone_of(&mut bus, bridge)?.filter(|zone| FORWARDING.contains(&zone.as_str())) else {
            return Ok(());
        };
        let configured =
            Method { destination: NAME, path: CONFIG_PATH, interface: CONFIG, member: "getZoneOfInterface" };
        let configured: String = bus.call(configured, &(bridge,))?;
        if configured != zone {
            let _zone: String = bus.call(zone_method("removeInterface"), &(zone.as_str(), bridge))?;
        }
        Ok(())
    };
    match remove() {
        // Without firewalld, there is no zone to leave.
        Err(Failure::Absent) => Ok(()),
        removed => removed.map_err(|failure| error("remove", bridge, failure)),
    }
}

fn error(verb: &'static str, bridge: &str, failure: Failure) -> Error {
    let object = match verb {
        "ask" => format!("firewalld about bridge {bridge:?}"),
        "add" => format!("bridge {bridge:?} to a zone of firewalld"),
        _ => format!("bridge {bridge:?} from its zone of firewalld"),
    };
    match failure {
        Failure::Absent => Error::new(verb, object, "it is not on the system bus")
            .with_hint("firewalld must be reachable at /run/dbus/system_bus_socket; or use --firewall none"),
        Failure::Broken(source) => Error::new(verb, object, source),
        Failure::Refused(name, text) => {
            // firewalld's own errors have a complete text: `INVALID_ZONE: x`.
            let text = if text.is_empty() { name } else { text };
            Error::new(verb, object, Cause::from(text))
        }
    }
}
