//! Method calls on the system bus (D-Bus specification). zbus encodes the messages. A socket is
//! enough for a call and its answer.

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use nix::unistd::getuid;
use serde::{Serialize, Serializer, de::DeserializeOwned, ser::SerializeStruct};
use zbus::{
    DynamicType, ObjectPath, Signature, Type, Variant,
    wire::{
        BE, LE, NATIVE_ENDIAN,
        serialized::{Context, Data},
        to_bytes,
    },
};

/// The socket of the bus, unless DBUS_SYSTEM_BUS_ADDRESS is set.
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
/// How long an answer may take. firewalld sometimes runs other programs.
const PATIENCE: Duration = Duration::from_secs(25);

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
/// Header flag: do not start the service.
const NO_AUTO_START: u8 = 2;
/// Fields of a header.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_TO: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;
/// The length of the header before the fields.
const FIXED: usize = 16;
/// The longest message that the specification allows.
const LONGEST: usize = 128 << 20;

type Fields<'a> = Vec<(u8, Variant<'a>)>;

/// The value of a header field. The signature of a body is a list of types. [`Variant`] would write
/// one type in parentheses.
#[derive(zbus::wire::Type)]
#[zbus(signature = "v")]
enum Field<'a> {
    Value(Variant<'a>),
    Signature(String),
}

impl Serialize for Field<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Value(value) => value.serialize(serializer),
            Self::Signature(types) => {
                let mut variant = serializer.serialize_struct("Variant", 2)?;
                variant.serialize_field("signature", &Signature::Signature)?;
                variant.serialize_field("value", types)?;
                variant.end()
            }
        }
    }
}

/// Why a call has no result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// There is no bus, or no service with this name.
    Absent,
    /// The connection to the bus failed.
    Broken(io::Error),
    /// The answer is an error, with its name and text.
    Refused(String, String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl From<zbus::Error> for Failure {
    fn from(error: zbus::Error) -> Self {
        Self::Broken(io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// A method of a service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Method<'a> {
    pub(crate) destination: &'a str,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) member: &'a str,
}

/// A connection to the system bus.
pub(crate) struct Bus {
    stream: BufReader<UnixStream>,
    serial: u32,
}

/// The socket of a bus address: the first `unix:path=`.
fn socket_of(address: &str) -> Option<PathBuf> {
    let path = |one: &str| {
        let keys = one.strip_prefix("unix:")?;
        keys.split(',').find_map(|key| key.strip_prefix("path=")).map(str::to_owned)
    };
    address.split(';').find_map(path).map(PathBuf::from)
}

fn protocol_error(words: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, words.to_owned())
}

impl Bus {
    /// Connects to the system bus.
    pub(crate) fn system() -> Result<Self, Failure> {
        let path = match env::var("DBUS_SYSTEM_BUS_ADDRESS") {
            Ok(address) => socket_of(&address)
                .ok_or_else(|| protocol_error("DBUS_SYSTEM_BUS_ADDRESS names no unix:path="))?,
            Err(_) => PathBuf::from(SYSTEM_BUS),
        };
        let stream = match UnixStream::connect(&path) {
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                return Err(Failure::Absent);
            }
            stream => stream?,
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut bus = Self { stream: BufReader::new(stream), serial: 0 };
        bus.authenticate()?;
        let hello = Method {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member: "Hello",
        };
        let _name: String = bus.call(hello, &())?;
        Ok(bus)
    }

    /// The bus learns our user from the kernel. The request only repeats it.
    fn authenticate(&mut self) -> Result<(), Failure> {
        let user: String = getuid().to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
        self.stream.get_mut().write_all(format!("\0AUTH EXTERNAL {user}\r\n").as_bytes())?;
        let mut line = String::new();
        self.stream.by_ref().take(1024).read_line(&mut line)?;
        if !line.starts_with("OK ") {
            return Err(protocol_error(&format!("the bus does not let us in: {}", line.trim())).into());
        }
        Ok(self.stream.get_mut().write_all(b"BEGIN\r\n")?)
    }

    /// Calls the method and waits for the answer.
    pub(crate) fn call<A, R>(&mut self, method: Method, arguments: &A) -> Result<R, Failure>
    where
        A: Serialize + DynamicType,
        R: DeserializeOwned + Type,
    {
        self.serial += 1;
        let message = message(self.serial, method, arguments)?;
        self.stream.get_mut().write_all(&message)?;
        loop {
            let answer = self.receive()?;
            if answer.reply_to != Some(self.serial) {
                continue;
            }
            let first_text = || answer.body.deserialize::<String>().map(|(text, _)| text).unwrap_or_default();
            return match answer.kind {
                METHOD_RETURN => Ok(answer.body.deserialize::<R>()?.0),
                ERROR => Err(match answer.error.as_deref() {
                    Some(
                        "org.freedesktop.DBus.Error.ServiceUnknown"
                        | "org.freedesktop.DBus.Error.NameHasNoOwner",
                    ) => Failure::Absent,
                    name => Failure::Refused(name.unwrap_or_default().to_owned(), first_text()),
                }),
                _ => continue,
            };
        }
    }

    fn receive(&mut self) -> Result<Received, Failure> {
        let mut bytes = vec![0; FIXED];
        self.stream.read_exact(&mut bytes)?;
        let endian = match bytes[0] {
            b'l' => LE,
            b'B' => BE,
            _ => return Err(protocol_error("a message of the bus begins with no byte order").into()),
        };
        let context = Context::new(endian, 0);
        type Begin = (u8, u8, u8, u8, u32, u32, u32);
        let begin = Data::new(bytes.clone(), context);
        let ((_, kind, _, _, body, _, fields), _) = begin.deserialize::<Begin>()?;
        let header = FIXED + (fields as usize).next_multiple_of(8);
        let length = header.saturating_add(body as usize);
        if length > LONGEST {
            return Err(protocol_error("a message of the bus is too long").into());
        }
        bytes.resize(length, 0);
        self.stream.read_exact(&mut bytes[FIXED..])?;
        let body = Data::new(bytes.split_off(header), context);
        let whole = Data::new(bytes, context);
        let (read, _) = whole.deserialize::<(u8, u8, u8, u8, u32, u32, Fields)>()?;
        let field = |wanted| read.6.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let reply_to = match field(REPLY_TO) {
            Some(Variant::U32(serial)) => Some(*serial),
            _ => None,
        };
        let error = match field(ERROR_NAME) {
            Some(Variant::Str(name)) => Some(name.as_str().to_owned()),
            _ => None,
        };
        Ok(Received { kind, reply_to, error, body })
    }
}

struct Received {
    kind: u8,
    reply_to: Option<u32>,
    error: Option<String>,
    body: Data<'static, 'static>,
}

/// A method call message with its header.
fn message<A: Serialize + DynamicType>(
    serial: u32,
    method: Method,
    arguments: &A,
) -> Result<Vec<u8>, zbus::Error> {
    let context = Context::new(NATIVE_ENDIAN, 0);
    let body = to_bytes(context, arguments)?;
    let mut fields = vec![
        (PATH, Field::Value(Variant::ObjectPath(ObjectPath::try_from(method.path)?))),
        (INTERFACE, Field::Value(Variant::from(method.interface))),
        (MEMBER, Field::Value(Variant::from(method.member))),
        (DESTINATION, Field::Value(Variant::from(method.destination))),
    ];
    let signature = arguments.signature();
    if signature != Signature::Unit {
        fields.push((SIGNATURE, Field::Signature(signature.to_string_no_parens())));
    }
    let order = if NATIVE_ENDIAN == LE { b'l' } else { b'B' };
    let header = (order, METHOD_CALL, NO_AUTO_START, 1_u8, body.len() as u32, serial, fields);
    let mut bytes = to_bytes(context, &header)?.to_vec();
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend(body.iter());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_written_as_the_specification_has_it() {
        let method = Method { destination: "a.b", path: "/c", interface: "d.e", member: "F" };
        let bytes = message(7, method, &("xy", "z")).unwrap();
        #[rustfmt::skip]
        let begin = [b'l', 1, 2, 1, 14, 0, 0, 0, 7, 0, 0, 0, 72, 0, 0, 0,
            1, 1, b'o', 0, 2, 0, 0, 0, b'/', b'c', 0, 0, 0, 0, 0, 0,
            2, 1, b's', 0, 3, 0, 0, 0, b'd', b'.', b'e', 0, 0, 0, 0, 0,
            3, 1, b's', 0, 1, 0, 0, 0, b'F', 0, 0, 0, 0, 0, 0, 0,
            6, 1, b's', 0, 3, 0, 0, 0, b'a', b'.', b'b', 0, 0, 0, 0, 0,
            8, 1, b'g', 0, 2, b's', b's', 0];
        assert_eq!(bytes[..begin.len()], begin, "{bytes:?}");
        let rest = [2, 0, 0, 0, b'x', b'y', 0, 0, 1, 0, 0, 0, b'z', 0];
        let body = &bytes[begin.len().next_multiple_of(8)..];
        assert_eq!(body[..rest.len()], rest);
    }

    #[test]
    fn the_first_path_of_an_address() {
        for (address, path) in [
            ("unix:path=/run/bus", Some("/run/bus")),
            ("tcp:host=x;unix:guid=1,path=/b", Some("/b")),
            ("unix:abstract=x", None),
            ("", None),
        ] {
            assert_eq!(socket_of(address), path.map(PathBuf::from), "{address}");
        }
    }
}
