//! The connections of a shard by their ids. A request looks its connection up several times, so a look-up is one step: the
//! lower half of an id is a place in a table, which the reactor uses again, the upper half tells its tenants apart.

use pelton_model::ConnectionId;

use crate::connection::Connection;

/// The table.
#[derive(Default)]
pub struct Connections {
    places: Vec<Option<(ConnectionId, Connection)>>,
    live: usize,
}

fn place(id: ConnectionId) -> usize {
    (id.0 & 0xffff_ffff) as usize
}

impl Connections {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.live
    }

    /// A connection.
    pub fn get(&self, id: ConnectionId) -> Option<&Connection> {
        let (tenant, connection) = self.places.get(place(id))?.as_ref()?;
        (*tenant == id).then_some(connection)
    }

    /// A connection.
    pub fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let (tenant, connection) = self.places.get_mut(place(id))?.as_mut()?;
        (*tenant == id).then_some(connection)
    }

    /// Enters a connection. Whoever had its place is gone.
    pub fn insert(&mut self, id: ConnectionId, connection: Connection) {
        let place = place(id);
        if self.places.len() <= place {
            self.places.resize_with(place + 1, || None);
        }
        self.live += usize::from(self.places[place].is_none());
        self.places[place] = Some((id, connection));
    }

    /// Takes a connection out.
    pub fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        self.get(id)?;
        self.live -= 1;
        self.places[place(id)].take().map(|(_, connection)| connection)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        self.places.iter().flatten().map(|(id, connection)| (*id, connection))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_model::Now;

    #[test]
    fn a_later_tenant_of_a_place_is_not_mistaken() {
        let mut connections = Connections::default();
        let (first, second) = (ConnectionId((1 << 32) | 5), ConnectionId((2 << 32) | 5));
        let connection = |id| Connection::new(id, "peer".to_string(), Now::default());
        connections.insert(first, connection(first));
        assert!(connections.get(second).is_none() && connections.remove(second).is_none());
        assert!(connections.remove(first).is_some() && connections.get(first).is_none());
        connections.insert(second, connection(second));
        assert!(connections.get(first).is_none() && connections.get_mut(second).is_some());
        assert_eq!((connections.len(), connections.iter().count()), (1, 1));
    }
}
