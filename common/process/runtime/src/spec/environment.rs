use oci_spec::image;

use super::Overrides;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The variables in Docker's order: defaults, links, the image's, and the requested ones. A later variable
/// replaces an earlier one. `home` is the user's directory, if it is known.
pub(super) fn of(run: &image::Config, overrides: &Overrides, home: Option<&str>) -> Vec<String> {
    let mut list = vec![PATH.to_owned()];
    let told = !overrides.without_hostname_variable;
    if let Some(hostname) = overrides.hostname.clone().or_else(host_name).filter(|_| told) {
        list.push(format!("HOSTNAME={hostname}"));
    }
    if overrides.terminal {
        list.push("TERM=xterm".to_owned());
    }
    set(&mut list, overrides.links.iter().chain(run.env().iter().flatten()));
    // As runc does, even if the variable is empty.
    let is_set = list.iter().any(|variable| name(variable) == "HOME" && variable != "HOME=");
    if let (Some(home), false) = (home, is_set) {
        set(&mut list, [&format!("HOME={home}")]);
    }
    list
}

/// Adds variables (`NAME=value`) to the list. Each replaces the variable with the same name.
pub fn set<'a>(list: &mut Vec<String>, variables: impl IntoIterator<Item = &'a String>) {
    for variable in variables {
        let name = name(variable);
        match list.iter_mut().find(|known| self::name(known) == name) {
            Some(known) => known.clone_from(variable),
            None => list.push(variable.clone()),
        }
    }
}

fn name(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

fn host_name() -> Option<String> {
    nix::unistd::gethostname().ok()?.into_string().ok()
}
