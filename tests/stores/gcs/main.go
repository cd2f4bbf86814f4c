// A server with the API of Google Cloud Storage, for tests: fake-gcs-server, with the parts of the XML API that it lacks and that
// clients of `object_store` use. These are uploads with a precondition, listings by pages, and the error of a missing bucket.
//
//	gcs ADDRESS BUCKET...
package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"log"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/fsouza/fake-gcs-server/fakestorage"
)

// Objects in a page of a listing. Google returns 1,000; with fewer, clients have to ask for further pages.
const pageSize = 50

func main() {
	if len(os.Args) < 3 {
		log.Fatal("usage: gcs ADDRESS BUCKET...")
	}
	fake, err := fakestorage.NewServerWithOptions(fakestorage.Options{NoListener: true, PublicHost: os.Args[1]})
	if err != nil {
		log.Fatal(err)
	}
	buckets := map[string]bool{}
	for _, name := range os.Args[2:] {
		fake.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: name})
		buckets[name] = true
	}
	handle := func(w http.ResponseWriter, r *http.Request) {
		bucket, object, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		query := r.URL.Query()
		switch {
		case !buckets[bucket]:
			refuse(w, http.StatusNotFound, "NoSuchBucket")
		case r.Method == http.MethodGet && object == "":
			list(w, fake, bucket, query)
		case r.Method == http.MethodPut && object != "":
			put(w, r, fake, bucket, object)
		case object != "" && (r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodDelete):
			fake.HTTPHandler().ServeHTTP(w, r)
		default:
			refuse(w, http.StatusNotImplemented, "NotImplemented")
		}
	}
	log.Fatal(http.ListenAndServe(os.Args[1], http.HandlerFunc(handle)))
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<?xml version='1.0' encoding='UTF-8'?><Error><Code>%s</Code></Error>", code)
}

// Uploads an object through the JSON API, which decides about the precondition and writes in one step.
func put(w http.ResponseWriter, r *http.Request, fake *fakestorage.Server, bucket, object string) {
	content, err := io.ReadAll(r.Body)
	if err != nil {
		refuse(w, http.StatusBadRequest, "IncompleteBody")
		return
	}
	var body bytes.Buffer
	parts := multipart.NewWriter(&body)
	metadata, _ := parts.CreatePart(textproto.MIMEHeader{"Content-Type": {"application/json"}})
	fmt.Fprint(metadata, "{}")
	data, _ := parts.CreatePart(textproto.MIMEHeader{"Content-Type": {r.Header.Get("Content-Type")}})
	data.Write(content)
	parts.Close()
	query := url.Values{"uploadType": {"multipart"}, "name": {object}}
	if generation := r.Header.Get("x-goog-if-generation-match"); generation != "" {
		query.Set("ifGenerationMatch", generation)
	}
	upload := httptest.NewRequest(http.MethodPost, "/upload/storage/v1/b/"+bucket+"/o?"+query.Encode(), &body)
	upload.Header.Set("Content-Type", "multipart/related; boundary="+parts.Boundary())
	answer := httptest.NewRecorder()
	fake.HTTPHandler().ServeHTTP(answer, upload)
	var written struct {
		Etag       string
		Generation string
	}
	switch {
	case answer.Code == http.StatusPreconditionFailed:
		refuse(w, http.StatusPreconditionFailed, "PreconditionFailed")
	case answer.Code != http.StatusOK || json.Unmarshal(answer.Body.Bytes(), &written) != nil:
		refuse(w, http.StatusInternalServerError, "InternalError")
	default:
		w.Header().Set("ETag", fmt.Sprintf("%q", written.Etag))
		w.Header().Set("x-goog-generation", written.Generation)
	}
}

type contents struct {
	Key, LastModified, ETag string
	Generation, Size        int64
}

type listing struct {
	XMLName               xml.Name `xml:"ListBucketResult"`
	NextContinuationToken string   `xml:",omitempty"`
	CommonPrefixes        []fakestorage.CommonPrefix
	Contents              []contents
}

func list(w http.ResponseWriter, fake *fakestorage.Server, bucket string, query url.Values) {
	after := query.Get("start-after")
	found, err := fake.ListObjectsWithOptionsPaginated(bucket, fakestorage.ListOptions{
		Prefix: query.Get("prefix"), Delimiter: query.Get("delimiter"), StartOffset: after,
		PageToken: query.Get("continuation-token"), MaxResults: pageSize,
	})
	if err != nil {
		refuse(w, http.StatusInternalServerError, "InternalError")
		return
	}
	page := listing{NextContinuationToken: found.NextPageToken}
	if query.Get("continuation-token") == "" {
		for _, prefix := range found.Prefixes {
			page.CommonPrefixes = append(page.CommonPrefixes, fakestorage.CommonPrefix{Prefix: prefix})
		}
	}
	for _, object := range found.Objects {
		if object.Name != after {
			page.Contents = append(page.Contents, contents{
				object.Name, object.Updated.Format(time.RFC3339Nano), object.Etag, object.Generation, object.Size})
		}
	}
	w.Header().Set("Content-Type", "application/xml")
	if err := xml.NewEncoder(w).Encode(page); err != nil {
		log.Print(err)
	}
}
