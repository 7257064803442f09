/// Joins the operations of several domains into one enum, for a tool that needs more than one domain.
///
/// ```text
/// operation::any_of! {
///     /// What netns-bridge does.
///     pub enum Op { Claim(operation::Claim), Netns(netns::NetnsOperation), Link(operation::Shared<netlink::LinkOperation>) }
/// }
/// ```
/// The variant's name is not part of the JSON: the `op` member of the inner value tells the variants apart.
#[macro_export]
macro_rules! any_of {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$vmeta:meta])* $variant:ident($inner:ty)),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(untagged)]
        $vis enum $name { $($(#[$vmeta])* $variant($inner)),+ }

        impl $crate::Operation for $name {
            fn explain(&self) -> Vec<String> {
                match self { $(Self::$variant(inner) => $crate::Operation::explain(inner)),+ }
            }
            fn apply(&mut self, scope: &$crate::Scope) -> Result<(), $crate::Error> {
                match self { $(Self::$variant(inner) => $crate::Operation::apply(inner, scope)),+ }
            }
            fn undo(&self, scope: &$crate::Scope) -> Result<(), $crate::Error> {
                match self { $(Self::$variant(inner) => $crate::Operation::undo(inner, scope)),+ }
            }
            fn check(&self, scope: &$crate::Scope) -> Result<$crate::Condition, $crate::Error> {
                match self { $(Self::$variant(inner) => $crate::Operation::check(inner, scope)),+ }
            }
        }
        $(impl From<$inner> for $name {
            fn from(inner: $inner) -> Self { Self::$variant(inner) }
        })+
    };
}
