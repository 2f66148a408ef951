package templates

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// boundaryPrefix cannot occur in base64 or quoted-printable.
const boundaryPrefix = "--=_"

// frame is what stands around the documents: MIME headers, boundaries and
// attachments. A message body is before text between html after; with a single
// document, before document after.
type frame struct {
	encodings              [2]encoding
	before, between, after []byte
}

// entity is one MIME entity: a document (doc 0 is text, 1 is HTML), finished
// content, or children.
type entity struct {
	fields   string // header fields but Content-Type of a multipart
	subtype  string // of a multipart
	children []entity
	doc      int // document, or -1
	content  []byte
}

// chooseFrame picks each document's encoding by the test render and builds the
// frame, and one without 8bit to fall back on.
func (p *Program) chooseFrame(d *documents) (frame, error) {
	for i, doc := range [][]byte{d.text, d.html} {
		p.encodings[i] = choose(doc, p.opt.AllowEightBit)
	}
	if p.encodings[0] == eightBit || d.html != nil && p.encodings[1] == eightBit {
		seven := p.encodings
		for i, doc := range [][]byte{d.text, d.html} {
			if seven[i] == eightBit {
				seven[i] = choose(doc, false)
			}
		}
		fallback := p.newFrame(seven)
		p.fallback = &fallback
	}
	return p.newFrame(p.encodings), nil
}

func (p *Program) newFrame(encodings [2]encoding) frame {
	w := frameWriter{seed: p.tmpl.version}
	w.entity(p.structure(encodings))
	f := frame{encodings: encodings, before: w.done[0], after: w.buf.Bytes()}
	if len(w.done) == 2 {
		f.between = w.done[1]
	}
	return f
}

// structure is text | alternative(text, html | related(html, pictures)), in a
// mixed with the attachments where there are any.
func (p *Program) structure(encodings [2]encoding) entity {
	document := func(i int, kind string) entity {
		return entity{doc: i, fields: "Content-Type: text/" + kind + "; charset=utf-8\r\n" +
			"Content-Transfer-Encoding: " + encodings[i].String() + "\r\n"}
	}
	var inline, attached []entity
	for _, a := range p.opt.Attachments {
		if e := a.entity(); a.Inline {
			inline = append(inline, e)
		} else {
			attached = append(attached, e)
		}
	}
	body := document(0, "plain")
	if p.tmpl.html != nil {
		page := document(1, "html")
		if len(inline) > 0 {
			page = entity{doc: -1, subtype: `related; type="text/html"`, children: append([]entity{page}, inline...)}
		}
		body = entity{doc: -1, subtype: "alternative", children: []entity{body, page}}
	}
	if len(attached) > 0 {
		body = entity{doc: -1, subtype: "mixed", children: append([]entity{body}, attached...)}
	}
	return body
}

type frameWriter struct {
	seed string
	buf  bytes.Buffer
	done [][]byte // what stood before each document
}

func (w *frameWriter) entity(e entity) {
	if e.subtype == "" {
		w.buf.WriteString(e.fields)
		w.buf.WriteString("\r\n")
		if e.doc >= 0 {
			w.done = append(w.done, bytes.Clone(w.buf.Bytes()))
			w.buf.Reset()
			return
		}
		w.buf.Write(e.content)
		return
	}
	boundary := w.boundary(e.subtype)
	w.buf.WriteString("Content-Type: multipart/" + e.subtype + ";\r\n boundary=\"" + boundary + "\"\r\n\r\n")
	for i, c := range e.children {
		// The CRLF in front of a boundary belongs to it (RFC 2046 section 5.1.1);
		// in front of the first one, the blank line above has been written already.
		if i > 0 {
			w.buf.WriteString("\r\n")
		}
		w.buf.WriteString("--" + boundary + "\r\n")
		w.entity(c)
	}
	w.buf.WriteString("\r\n--" + boundary + "--\r\n")
}

// boundary is the same whenever the same template is compiled, so that every
// attempt at a message has the same octets.
func (w *frameWriter) boundary(subtype string) string {
	kind, _, _ := strings.Cut(subtype, ";")
	sum := sha256.Sum256([]byte(kind + w.seed))
	return strings.TrimPrefix(boundaryPrefix, "--") + kind[:3] + hex.EncodeToString(sum[:10])
}
