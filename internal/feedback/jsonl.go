package feedback

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/verdict"
)

// loose is a value that some APIs write as a string and others as a number.
type loose string

func (l *loose) UnmarshalJSON(b []byte) error {
	switch {
	case len(b) > 0 && b[0] == '"':
		return json.Unmarshal(b, (*string)(l))
	case string(b) == "null":
		return nil
	case len(b) > 0 && (b[0] == '-' || b[0] >= '0' && b[0] <= '9'):
		*l = loose(b)
		return nil
	}
	return errors.New("want a string or a number")
}

// row is one line. Other fields mean nothing here.
type row struct {
	Address   string `json:"address"`
	Email     string `json:"email"`
	MessageID string `json:"message_id"`
	Campaign  string `json:"campaign"`
	Status    string `json:"status"`
	Text      string `json:"text"`
	Reply     string `json:"reply"`
	Code      loose  `json:"code"`
	Enhanced  string `json:"enhanced"`
	Stage     string `json:"stage"`
	Time      loose  `json:"time"`
}

// parseLine reads one line of JSON Lines.
func parseLine(line []byte) (Report, error) {
	line = bytes.TrimSpace(line)
	if len(line) > 0 && line[0] == '[' {
		return Report{}, errors.New("this is a JSON array: write one object a line, without brackets and commas between them (jq -c '.[]')")
	}
	var in row
	if err := json.Unmarshal(line, &in); err != nil {
		return Report{}, jsonFault(err)
	}
	r := Report{Campaign: in.Campaign, MessageID: plainID(in.MessageID), Trusted: true}
	var err error
	if r.Status, err = parseStatus(in.Status); err != nil {
		return r, err
	}
	for _, given := range []string{in.Address, in.Email} {
		if given = strings.TrimSpace(given); given != "" {
			if r.Address, err = mail.ParseAddress(given); err != nil {
				return r, fmt.Errorf("address %s: %w", mail.Mask(given), err)
			}
		}
	}
	if r.Time, err = parseTime(string(in.Time)); err != nil {
		return r, err
	}
	if r.Reply, err = in.reply(); err != nil {
		return r, err
	}
	return r, r.check()
}

// reply puts together what the fields say of the reply.
func (in *row) reply() (verdict.Input, error) {
	text := in.Text
	if text == "" {
		text = in.Reply
	}
	said := verdict.ParseReply(text)
	if in.Code != "" {
		code, err := strconv.Atoi(string(in.Code))
		if err != nil || code < 200 || code > 599 {
			return said, fmt.Errorf("code %q: want a reply code from 200 to 599", clip(string(in.Code)))
		}
		said.Code = code
	}
	if in.Enhanced != "" {
		said.Enhanced = strings.TrimSpace(in.Enhanced)
	}
	if in.Stage != "" {
		var err error
		if said.Stage, err = verdict.ParseStage(in.Stage); err != nil {
			return said, err
		}
	}
	return said, nil
}

// jsonFault says what is wrong with JSON without quoting it: it has addresses.
func jsonFault(err error) error {
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) && kind.Field != "" {
		return fmt.Errorf("field %s is of the wrong kind: %s", clip(kind.Field), kind.Value)
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("not a JSON object: character %d is not what JSON wants there", syntax.Offset)
	}
	return fmt.Errorf("not a JSON object: %w", err)
}
