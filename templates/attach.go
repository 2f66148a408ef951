package templates

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Limits of NHN Cloud Email's console and API; for SMTP none are published.
const (
	maxAttachments    = 10
	maxAttachmentSize = 20 << 20 // bytes of one file; base64 makes it 27 MB, which MaxSize refuses anyway
)

// forbiddenExtensions are those that NHN Cloud Email refuses.
var forbiddenExtensions = []string{".js", ".exe", ".bat", ".cmd", ".com", ".cpl", ".scr", ".vbs", ".wsf"}

// mediaTypes by extension. The machine's own table would make the octets of a
// message depend on where it is rendered.
var mediaTypes = map[string]string{
	".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp",
	".pdf": "application/pdf", ".zip": "application/zip", ".txt": "text/plain", ".csv": "text/csv",
	".ics": "text/calendar", ".html": "text/html",
	".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
	".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
	".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
	".hwp":  "application/x-hwp", ".hwpx": "application/hwp+zip",
}

// sniffed are the types whose content shows what it is.
var sniffed = []string{"image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf", "application/zip"}

// Attachment is a file that goes with every message of a campaign. An inline one
// is a picture that the HTML shows as <img src="cid:NAME">.
type Attachment struct {
	Name   string `json:"name"` // file name without folder
	Inline bool   `json:"inline,omitempty"`
	Data   []byte `json:"data"`
}

// LoadAttachment reads a file of at most 20 MB.
func LoadAttachment(path string, inline bool) (Attachment, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return Attachment{}, fmt.Errorf("attachment: %w", err)
	case !info.Mode().IsRegular():
		return Attachment{}, fmt.Errorf("attachment %s: not a regular file", path)
	case info.Size() > maxAttachmentSize:
		return Attachment{}, fmt.Errorf("attachment %s: larger than %d MB", path, maxAttachmentSize>>20)
	}
	f, err := os.Open(path)
	if err != nil {
		return Attachment{}, fmt.Errorf("attachment: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxAttachmentSize+1))
	if err != nil {
		return Attachment{}, fmt.Errorf("attachment: %w", err)
	}
	a := Attachment{Name: filepath.Base(path), Inline: inline, Data: data}
	if err := a.check(); err != nil {
		return Attachment{}, fmt.Errorf("attachment %s: %w", path, err)
	}
	return a, nil
}

func checkAttachments(all []Attachment) error {
	if len(all) > maxAttachments {
		return fmt.Errorf("%d attachments: at most %d", len(all), maxAttachments)
	}
	seen := map[string]bool{}
	for _, a := range all {
		if err := a.check(); err != nil {
			return fmt.Errorf("attachment %q: %w", a.Name, err)
		}
		if seen[a.Name] {
			return fmt.Errorf("attachment %q: given twice", a.Name)
		}
		seen[a.Name] = true
	}
	return nil
}

// inlineName is fit for a cid: URL and a Content-ID alike.
var inlineName = regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._-]*\z`)

func (a Attachment) check() error {
	ext := strings.ToLower(filepath.Ext(a.Name))
	kind := a.mediaType()
	switch {
	case a.Name == "" || len(a.Name) > 255 || strings.ContainsAny(a.Name, `/\`):
		return errors.New("want a file name of 1 to 255 bytes without folders")
	case !utf8.ValidString(a.Name) || hasControl(a.Name):
		return errors.New("the name contains a line break or another control character")
	case slices.Contains(forbiddenExtensions, ext):
		return fmt.Errorf("files of type %s are refused by relays", ext)
	case len(a.Data) == 0:
		return errors.New("empty")
	case len(a.Data) > maxAttachmentSize:
		return fmt.Errorf("larger than %d MB", maxAttachmentSize>>20)
	case a.Inline && !inlineName.MatchString(a.Name):
		return errors.New("the name of an inline picture has letters, digits, dots, hyphens and underscores only")
	case a.Inline && !strings.HasPrefix(kind, "image/"):
		return errors.New("inline files are pictures: png, jpg, gif or webp")
	case slices.Contains(sniffed, kind) && http.DetectContentType(a.Data) != kind:
		return fmt.Errorf("the content is not %s, as its name says, but %s", kind, http.DetectContentType(a.Data))
	}
	return nil
}

func (a Attachment) mediaType() string {
	if kind := mediaTypes[strings.ToLower(filepath.Ext(a.Name))]; kind != "" {
		return kind
	}
	return "application/octet-stream"
}

func (a Attachment) entity() entity {
	fields := "Content-Type: " + a.mediaType() + "\r\nContent-Transfer-Encoding: base64\r\n"
	disposition := "attachment"
	if a.Inline {
		disposition = "inline"
		fields += "Content-ID: <" + a.Name + ">\r\n"
	}
	fields += "Content-Disposition: " + disposition + appendParameter("filename", a.Name) + "\r\n"
	return entity{doc: -1, fields: fields, content: appendBase64(nil, a.Data)}
}

// appendParameter returns a parameter on a line of its own, or, where it needs
// encoding or is long, in numbered sections (RFC 2231 sections 3 and 4).
func appendParameter(name, value string) string {
	if plainText([]byte(value)) && len(value) <= maxUnfolded && !strings.ContainsAny(value, `"\`) {
		return ";\r\n " + name + `="` + value + `"`
	}
	var b strings.Builder
	section, encoded := 0, "UTF-8''"
	flush := func() {
		fmt.Fprintf(&b, ";\r\n %s*%d*=%s", name, section, encoded)
		section, encoded = section+1, ""
	}
	for _, r := range value {
		piece := string(appendURL(nil, string(r), urlQuery))
		if len(encoded)+len(piece) > maxUnfolded {
			flush()
		}
		encoded += piece
	}
	flush()
	return b.String()
}

var cidURL = regexp.MustCompile(`cid:([^"'\s)>]+)`)

// checkInline wants a picture for every cid: URL and a cid: URL for every picture.
func (p *Program) checkInline(html []byte) error {
	shown := map[string]bool{}
	for _, m := range cidURL.FindAllSubmatch(html, -1) {
		name := string(m[1])
		shown[name] = true
		if !slices.ContainsFunc(p.opt.Attachments, func(a Attachment) bool { return a.Inline && a.Name == name }) {
			return fmt.Errorf("html shows cid:%s: attach that picture inline", name)
		}
	}
	for _, a := range p.opt.Attachments {
		if a.Inline && !shown[a.Name] {
			return fmt.Errorf("inline picture %s: html does not show cid:%s", a.Name, a.Name)
		}
	}
	return nil
}
