package relay

// profiles returns all of them, in the order help shows them.
func profiles() []profile {
	return []profile{
		{name: "nhn", about: "NHN Cloud's banner, EHLO lines and logins; accepts everything",
			build: func(values) profileSpec { return profileSpec{plainAuth: true} }},
		{name: "demo", about: "as nhn, but refuses a few: some for now (4xx), some for good (5xx), fewer still after the dot",
			params: []param{{"defer", "1.5%", aShare}, {"reject", "1%", aShare}, {"refuse", "0.3%", aShare}},
			build:  demo},
		{name: "strict", about: "refuses all that is out of order or malformed, closes on garbage and on early talk, no AUTH before TLS",
			params: []param{{"greet", "20ms", aDuration}},
			build: func(v values) profileSpec {
				return profileSpec{strict: true, greetWait: v.duration("greet")}
			}},
		{name: "greylist", about: "defers the first attempts for every recipient, then accepts",
			params: []param{{"times", "1", aCount}, {"share", "100%", aShare}},
			build:  greylist},
		{name: "flaky", about: "drops connections at random, before the dot and after it (accepted, no reply); a retry is drawn anew",
			params: []param{{"before", "1%", aShare}, {"after", "1%", aShare}, {"reset", "0.5%", aShare}},
			build:  flaky},
		{name: "throttled", about: "limits messages and connections per window (rate, connects: N/DURATION, repeatable), open connections, messages per connection",
			params: []param{{"rate", "100/1s", aRate}, {"connects", "", aRate}, {"open", "10", aCount}, {"per_connection", "100", aCount}, {"code", "452", aCode}},
			build:  throttled},
		{name: "slow", about: "answers late",
			params: []param{{"greet", "1s", aDuration}, {"command", "100ms", aDuration}, {"dot", "1s", aDuration}},
			build:  slow},
		{name: "lockstep", about: "as nhn, but does not offer PIPELINING",
			build: func(values) profileSpec { return profileSpec{plainAuth: true, noPipe: true} }},
		{name: "badpipe", about: "offers PIPELINING and throws away what comes together with an earlier command",
			build: badPipe},
		{name: "bounces", about: "accepts everything, and tells afterwards in a file (--feedback) what came back, in receivers' words",
			params: []param{{"share", "20%", aShare}, {"block", "", aShare}, {"after", "1s", aDuration}},
			build: func(v values) profileSpec {
				return profileSpec{plainAuth: true, bounces: &bouncing{v.share("share"), v.share("block"), v.duration("after")}}
			}},
		{name: "down", about: "refuses every connection with 421 at the greeting",
			build: func(values) profileSpec {
				return profileSpec{rules: []Rule{{Name: "down", Stage: Connect, Reply: "421 4.3.2 Service not available, closing transmission channel"}}}
			}},
	}
}

// demo is what a newcomer sees: retries that succeed, and refusals as real receivers word
// them (Postfix, Gmail, Naver, Daum, docomo and Outlook among them).
func demo(v values) profileSpec {
	return profileSpec{plainAuth: true, rules: []Rule{
		{Name: "rejected", Stage: Rcpt, Share: v.share("reject"), Replies: []string{
			"550 5.1.1 <{to}>: Recipient address rejected: User unknown",
			"550 5.1.1 The email account that you tried to reach does not exist",
			"550 5.2.1 Mailbox is inactive: <{to}>",
			"550 5.1.1 Unknown user {to}",
			"552 5.2.2 <{to}>: user is overquota",
			"550 5.4.1 Recipient address rejected: Access denied",
		}},
		{Name: "deferred", Stage: Rcpt, Share: v.share("defer"), Times: 1, Replies: []string{
			"451 4.7.1 <{to}>: Recipient address rejected: Greylisted, please try again later",
			"450 4.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional messages from being delivered",
			"452 4.2.2 The email account that you tried to reach is over quota",
			"450 4.3.2 Service currently unavailable, try again later",
		}},
		{Name: "refused", Stage: EOD, Share: v.share("refuse"), Reply: "552 5.2.3 Message is larger than this mailbox takes"},
	}}
}

func greylist(v values) profileSpec {
	if v.count("times") == 0 {
		return profileSpec{plainAuth: true}
	}
	return profileSpec{plainAuth: true, rules: []Rule{{
		Name: "greylisted", Stage: Rcpt, Share: v.share("share"), Times: v.count("times"),
		Reply: "451 4.7.1 <{to}>: Recipient address rejected: Greylisted, please try again later",
	}}}
}

func flaky(v values) profileSpec {
	return profileSpec{plainAuth: true, rules: []Rule{
		{Name: "dropped before the dot", Stage: Body, Share: v.share("before"), Fresh: true, Bytes: 1, Action: Drop},
		{Name: "dropped after the dot", Stage: EOD, Share: v.share("after"), Fresh: true, Action: AcceptDrop},
		{Name: "reset at RCPT", Stage: Rcpt, Share: v.share("reset"), Fresh: true, Action: Reset},
	}}
}

func throttled(v values) profileSpec {
	code := 452
	if v.first("code") == "421" {
		code = 421
	}
	return profileSpec{plainAuth: true, limits: &limits{
		messages: v.rates("rate"), connects: v.rates("connects"),
		open: v.count("open"), perConnection: v.count("per_connection"), code: code,
	}}
}

func slow(v values) profileSpec {
	spec := profileSpec{plainAuth: true}
	add := func(stage Stage, param string) {
		if d := v.duration(param); d > 0 {
			spec.rules = append(spec.rules, Rule{Name: "slow " + string(stage), Stage: stage, Delay: d})
		}
	}
	add(Connect, "greet")
	for _, stage := range []Stage{Ehlo, StartTLS, Auth, Mail, Rcpt, Data, Rset, Noop, Quit} {
		add(stage, "command")
	}
	add(EOD, "dot")
	return spec
}

// badPipe answers the first command of a group and loses the rest of it, as some relays
// do that read a line at a time with a fresh buffer.
func badPipe(values) profileSpec {
	spec := profileSpec{plainAuth: true}
	for _, stage := range []Stage{Mail, Rcpt, EOD, Rset} {
		spec.rules = append(spec.rules, Rule{Name: "lost rest of the group at " + string(stage), Stage: stage, Action: Discard})
	}
	return spec
}
