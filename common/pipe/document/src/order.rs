//! Sorts the maps in oci-spec's types, which are hash maps, so that the same image always gives the same
//! document.

use oci_spec::image::Descriptor;
use serde::{Serialize, Serializer};
use serde_json::Value;

pub(crate) fn descriptor<S: Serializer>(descriptor: &Descriptor, serializer: S) -> Result<S::Ok, S::Error> {
    sorted(descriptor, "/annotations", serializer)
}

fn sorted<S: Serializer>(value: &impl Serialize, map: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let mut value = serde_json::to_value(value).map_err(serde::ser::Error::custom)?;
    if let Some(Value::Object(map)) = value.pointer_mut(map) {
        map.sort_keys();
    }
    value.serialize(serializer)
}

#[cfg(test)]
mod tests {
    use crate::members::Image;

    #[test]
    fn maps_are_written_in_one_order() {
        let descriptor = r#"{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000","size":1,"annotations":{"a":"1","b":"2","c":"3","d":"4","e":"5"}}"#;
        let configuration = r#"{"architecture":"amd64","os":"linux","config":{"Labels":{"a":"1","b":"2","c":"3","d":"4","e":"5"}},"rootfs":{"type":"layers","diff_ids":[]},"history":[]}"#;
        let text = format!(r#"{{"descriptor":{descriptor},"configuration":{configuration}}}"#);
        for _ in 0..8 {
            let image: Image = serde_json::from_str(&text).unwrap();
            assert_eq!(serde_json::to_string(&image).unwrap(), text);
        }
    }
}
