//! Functions of detection are identified by their names: the engine prints, compares and looks them up by name.

/// Identifies a type with a `spec` by the name in it.
macro_rules! known_by_name {
    ($function:ident $(<$state:ident>)?) => {
        impl$(<$state>)? std::fmt::Debug for $function$(<$state>)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.spec.name)
            }
        }

        impl$(<$state>)? PartialEq for $function$(<$state>)? {
            fn eq(&self, other: &Self) -> bool {
                self.spec.name == other.spec.name
            }
        }

        impl$(<$state>)? Eq for $function$(<$state>)? {}

        impl$(<$state>)? std::hash::Hash for $function$(<$state>)? {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                self.spec.name.hash(state);
            }
        }
    };
}

pub(super) use known_by_name;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fmt::Debug;
    use std::hash::Hash;

    use super::super::{aggregate, evidence, measure, window};

    /// Checks that every function equals itself when it is made again, and equals no other one.
    fn check_identity<F: Clone + Debug + Eq + Hash>(made: &[F], again: &[F], name: fn(&F) -> &str) {
        assert_eq!(made, again);
        let names: HashSet<&str> = made.iter().map(name).collect();
        assert_eq!((names.len(), made.iter().cloned().collect::<HashSet<F>>().len()), (made.len(), made.len()));
        assert!(made.iter().all(|function| format!("{function:?}").contains(name(function))));
    }

    #[test]
    fn functions_are_distinguished_by_their_names() {
        let scalar = || evidence::all().into_iter().chain(measure::all()).collect::<Vec<_>>();
        check_identity(&scalar(), &scalar(), |function| function.name());
        check_identity(&aggregate::all(), &aggregate::all(), |function| function.name());
        check_identity(&window::all(), &window::all(), |function| function.name());
    }
}
