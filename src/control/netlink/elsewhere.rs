//! An interface in another network namespace, asked about from this one: the kernel gives namespaces numbers.

use std::fs::File;
use std::os::fd::AsRawFd as _;

use futures_util::StreamExt as _;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};

use super::{Error, Link, Netlink, first_link};

/// No number as yet; asks for one, too.
const NONE: i32 = -1;

impl Netlink {
    /// The interface with this name in this thread's namespace.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn link_named(&self, name: &str) -> Result<Option<Link>, Error> {
        first_link(self.0.link().get().match_name(name.to_owned())).await
    }

    /// The interface with this name in `namespace`.
    ///
    /// # Errors
    /// When the kernel refuses: CAP_NET_ADMIN is needed there.
    pub async fn link_in(&self, namespace: &File, name: &str) -> Result<Option<Link>, Error> {
        let number = match self.number_of(namespace).await? {
            NONE => {
                self.give_number(namespace).await?;
                self.number_of(namespace).await?
            }
            number => number,
        };
        let mut request = self.0.link().get().match_name(name.to_owned());
        request.message_mut().attributes.push(LinkAttribute::IfNetnsId(number));
        first_link(request).await
    }

    async fn number_of(&self, namespace: &File) -> Result<i32, Error> {
        let answer = self.ask(RouteNetlinkMessage::GetNsId(named(namespace, None)), NLM_F_REQUEST).await?;
        let Some(RouteNetlinkMessage::NewNsId(message)) = answer else {
            return Err(Error::Protocol("no number of a namespace".into()));
        };
        #[expect(clippy::wildcard_enum_match_arm, reason = "one attribute of many")]
        let number = message.attributes.iter().find_map(|attribute| match attribute {
            NsidAttribute::Id(number) => Some(*number),
            _ => None,
        });
        Ok(number.unwrap_or(NONE))
    }

    async fn give_number(&self, namespace: &File) -> Result<(), Error> {
        let message = RouteNetlinkMessage::NewNsId(named(namespace, Some(NONE)));
        match self.ask(message, NLM_F_REQUEST | NLM_F_ACK).await {
            Ok(_) | Err(Error::Exists) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sends one message; the first answer to it.
    async fn ask(&self, message: RouteNetlinkMessage, flags: u16) -> Result<Option<RouteNetlinkMessage>, Error> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        let mut answers = self.0.clone().request(request).map_err(Error::from)?;
        match answers.next().await.map(|answer| answer.payload) {
            Some(NetlinkPayload::InnerMessage(message)) => Ok(Some(message)),
            Some(NetlinkPayload::Error(error)) if error.code.is_some() => {
                Err(rtnetlink::Error::NetlinkError(error).into())
            }
            _ => Ok(None),
        }
    }
}

fn named(namespace: &File, number: Option<i32>) -> NsidMessage {
    let mut message = NsidMessage::default();
    message.attributes.push(NsidAttribute::Fd(namespace.as_raw_fd().cast_unsigned()));
    message.attributes.extend(number.map(NsidAttribute::Id));
    message
}
