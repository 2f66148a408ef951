package verdict

// meanings has texts for the rules by class: words of each kind in other orders than
// phrases know, and beside each class what must not be taken for it.
func meanings() map[string]class {
	rcpt, eod, mail := []Stage{Rcpt}, []Stage{EOD}, []Stage{Mail}
	return map[string]class{
		"nobody, in any order": {550, "", rcpt, Suppress, "", []string{
			"not user of this server", "recipient e-mail adress unknown", "Unable to validate recipient", "no users by that name", "the name of that mailbox is wrong",
			"not known at this site", "is no longer available", "destination addresses were unknown", "Mailaddress is administratively disabled", "User has not logged in for 400 days",
		}},
		"not said of the address": {550, "", rcpt, Fail, RetrySlow, []string{
			"Recipient rejected: unknown reason", "Unknown error while checking the recipient", "Cannot verify recipient: directory unavailable", "Invalid certificate for recipient domain",
			"Command parameter invalid", "The user has not enough diskspace available", "User is not able to receive any more mail", "This mailing list is closed to non subscribers",
			"Group does not exist or you are not a member", "Recipient list too long", "Server configuration error, recipient unknown at this time", "Recipient server could not be reached",
			"RCPT TO parameters not recognized or not implemented", "User not authorized to relay", "This feature is disabled",
		}},
		"said of us": {550, "", rcpt, PauseBlocked, PauseConfig, []string{
			"Too many invalid recipients", "Invalid HELO for recipient", "Sender unknown to recipient", "Account requires authentication",
			"Callout: postmaster verification failed, user unknown", "Your IP address is blacklisted, user unknown",
		}},
		"one mail's own fault": {554, "", eod, Fail, "", []string{
			"Attachment type not permitted by policy", "Restricted attachment, message blocked", "High risk file extension, blacklisted", "BANNED: .exe", "exceeded mailsize limit",
			"The length of DATA is over the maximum threshold", "Number of Received headers exceeds the maximum", "recipient does not accept mail from the internet", "Emails can only be sent from approved external addresses",
		}},
		"form of the mail": {550, "", eod, PauseConfig, "", []string{
			"Message does not conform to standards", "maximum allowed line length is 998 octets", "not exactly one Date field required", "a stray CR character", "Multipart boundary is missing",
		}},
		"refused when read": {550, "", eod, PauseBlocked, "", []string{"Your message has been quarantined", "This server won't accept this email", "Refused by filter", "Message declined"}},
		"sender for now": {451, "", mail, PauseConfig, "", []string{
			"Sender domain does not exist", "From address does not belong to your account", "address not owned by authenticated user", "domain has no valid MX", "host of the sender must resolve",
		}},
		"trouble before RCPT": {450, "", mail, Retry, "", []string{
			"Requested mail action not taken: mailbox unavailable", "Service unavailable, host is shutting down", "Temporary resolver error", "temporary failure of the sender check",
		}},
		"greeting, for now": {421, "", []Stage{Connect}, Retry, "", []string{"Domain service not available", "temporarily refused connection because the server is too busy", "All screening ports are busy"}},
	}
}
